"""What the program prints of itself: the systemd unit, the manual page, and completion for a shell."""

import argparse
import os
import shutil
import sys
from importlib import import_module
from importlib.resources import as_file, files

from nfct_fast.command.standard_error import warn

_STDOUT = 1


class Document(argparse.Action):
    """An option that has a document printed, and the program end.

    Args:
        show: Called with the option's value, if it takes one; returns the text.
    """

    def __init__(self, option_strings, dest, show, **options):
        super().__init__(option_strings, argparse.SUPPRESS, default=argparse.SUPPRESS, **options)
        self._show = show

    def __call__(self, parser, namespace, values, option_string=None):
        if sys.stdout is None:  # another file may have got its number
            warn("standard output is closed")
            sys.exit(1)
        sys.exit(write_text(self._show(values) if self.nargs is None else self._show()))


def write_text(text) -> int:
    """Print text, and return the exit status: 1, with a message, if it could not be written."""
    rest = text.encode(errors="surrogateescape")
    try:
        while rest:
            rest = rest[os.write(_STDOUT, rest) :]
    except BrokenPipeError:
        return 0
    except OSError as error:
        warn(f"output: {error.strerror}")
        return 1
    return 0


def unit() -> str:
    """Return the systemd unit, and say on standard error what is wrong with the place of the program."""
    module = import_module("nfct_fast.command.unit")
    for path in dict.fromkeys((module.installed_as()[0], os.path.realpath(sys.executable))):
        warn(*module.faults(path))
    return module.unit()


def manual() -> str:
    """Show the manual page on a terminal, and do not return; elsewhere return its source."""
    page = files("nfct_fast").joinpath("data/nfct-fast.1")
    man = shutil.which("man")
    if man and os.isatty(_STDOUT):
        with as_file(page) as path:
            os.execv(man, [man, "-l", str(path)])
    return page.read_text(encoding="utf-8")


def completion(shell) -> str:
    """Return the completion of a shell, made from the parsers."""
    return import_module("nfct_fast.command.completion").script(shell)
