"""Find this package's extension modules, all in one shared object: `_modules`, whose NAMES lists them."""

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import spec_from_file_location

from . import _modules


class ModulesFinder:
    """A meta path finder for the modules listed in `_modules.NAMES`."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in _modules.NAMES:
            return None
        loader = ExtensionFileLoader(fullname, _modules.__file__)
        return spec_from_file_location(fullname, _modules.__file__, loader=loader)


# At the end of the path, so that it slows no other import down.
sys.meta_path.append(ModulesFinder)
