"""Finds this package's extension modules, which one shared object holds: `_modules`, whose NAMES are theirs."""
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import spec_from_file_location

from . import _modules


class ModulesFinder:
    """A finder for the names in `_modules`, and for no others."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in _modules.NAMES:
            return None
        return spec_from_file_location(fullname, _modules.__file__, loader=ExtensionFileLoader(fullname, _modules.__file__))


# Last: no import of anybody else's is slower for it.
sys.meta_path.append(ModulesFinder)
