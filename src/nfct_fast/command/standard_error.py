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
    """An argument parser that reports invalid arguments in one line."""

    def error(self, message):
        warn(f"{message} (try -h)")
        sys.exit(2)
