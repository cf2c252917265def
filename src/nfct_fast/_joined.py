"""Finds the extension modules in the one shared object that holds them all."""
import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import spec_from_file_location


class Joined:
    """Tells the import system where a module of this package is."""

    def __init__(self, path):
        self._path = path
        with open(path, "rb") as file:
            # The interpreter will ask the file for PyInit_name: its table of symbols is the list of contents.
            parts = file.read().split(b"\0PyInit_")[1:]
        self.names = {part.partition(b"\0")[0].decode() for part in parts}

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.rpartition(".")
        if package != __package__ or name not in self.names:
            return None
        return spec_from_file_location(fullname, self._path, loader=ExtensionFileLoader(fullname, self._path))


for _entry in os.scandir(os.path.dirname(__file__)):
    if _entry.name.startswith("_modules.") and _entry.name.endswith(".so"):
        # First, so that a file left by a build that made one for each module is not taken.
        sys.meta_path.insert(0, Joined(_entry.path))
