"""Logs network connections from Linux conntrack events, each with the process behind it."""
from importlib import import_module

from . import _joined  # first: it finds the modules that the others import
from ._version import __version__

_HOMES = {"Conntrack": "conntrack", "Stats": "conntrack", "Flow": "record", "Tuple": "record", "Counters": "record",
          "Owner": "owner", "Process": "process", "Status": "status"}

__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    # Loaded when first asked for: the command line must be able to take a ^C before that.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
