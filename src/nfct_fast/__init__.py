"""Logs network connections from Linux conntrack events, each with the process behind it."""

from ._version import __version__

__all__ = ["__version__"]
