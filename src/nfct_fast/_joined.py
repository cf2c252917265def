"""Finds the extension modules in the one shared object that holds them all."""
import re
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path


class Joined:
    """Tells the import system where a module of this package is."""

    def __init__(self, path):
        self._path = str(path)
        # The interpreter will ask the file for PyInit_name: those symbols are its list of contents. Takes under a millisecond.
        self.names = {name.decode() for name in re.findall(rb"\0PyInit_(\w+)(?=\0)", path.read_bytes())}

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.rpartition(".")
        if package != __package__ or name not in self.names:
            return None
        return spec_from_file_location(fullname, self._path, loader=ExtensionFileLoader(fullname, self._path))


for found in Path(__file__).parent.glob("_modules.*so"):
    # First, so that a file left by a build that made one for each module is not taken.
    sys.meta_path.insert(0, Joined(found))
