"""What the program says on standard error, and how it refuses arguments."""

import argparse
import os
import select
import sys

PROGRAM = "nfct-fast"
_STDERR = 2
_STDERR_WAIT_MS = 100  # the longest wait for a standard error that nobody reads


def warn(*messages):
    """Print each message as a line on standard error. Give up if that is closed, full or blocked."""
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    if messages and poll.poll(_STDERR_WAIT_MS):
        try:
            text = "".join([f"{PROGRAM}: {message}\n" for message in messages])
            os.write(_STDERR, text.encode(errors="backslashreplace"))
        except OSError:
            pass


class Parser(argparse.ArgumentParser):
    """An argument parser that reports invalid arguments in one line.

    optional_values: options whose value may be left out, with the value that they have then. A value has to follow
    after "=": the next word is another argument, such as the first one of a filter.
    """

    def __init__(self, *arguments, optional_values=None, **options):
        super().__init__(*arguments, **options)
        self._optional_values = optional_values or {}

    def parse_known_args(self, args=None, namespace=None):
        """As argparse has it."""
        args = sys.argv[1:] if args is None else list(args)
        end = args.index("--") if "--" in args else len(args)
        args[:end] = [
            f"{word}={self._optional_values[word]}" if word in self._optional_values else word for word in args[:end]
        ]
        return super().parse_known_args(args, namespace)

    def error(self, message):
        warn(f"{message} (try -h)")
        sys.exit(2)
