"""Run the program: parse its arguments, do what they ask for, and return an exit status."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # `python -m` puts the current directory there: a file named like a standard module would run

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for a ^C during the imports

from importlib import import_module

from nfct_fast.command.standard_error import warn
from nfct_fast.command.stop import fill_standard_descriptors
from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.store.store_error import StoreError

# Modules of nfct_fast.command with a function parser(), and run(arguments) that does the work and may return an exit
# status.
_LOG = "log"
_CHECK = "check"  # in place of _LOG with --check
_SUBCOMMANDS = {"find": "find", "fleet": "fleet", "top": "top"}


def main(argv=None) -> int:
    """Run the program with these arguments, sys.argv's by default, and return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is output that must not be cut off
    argv = sys.argv[1:] if argv is None else argv
    subcommand = _SUBCOMMANDS.get(argv[0]) if argv else None
    command = import_module(f"nfct_fast.command.{subcommand or _LOG}")
    parser = command.parser()
    arguments = parser.parse_intermixed_args(argv[1:] if subcommand else argv)
    if not subcommand and arguments.check:
        command = import_module(f"nfct_fast.command.{_CHECK}")
    if sys.stdout is None:
        warn("standard output is closed")
        return 1
    fill_standard_descriptors()
    try:
        return command.run(arguments) or 0
    except BrokenPipeError:
        return 0  # the reader of the output has closed it
    except ValueError as error:
        if arguments.debug:
            raise
        parser.error(str(error))
    except (RecordingError, StoreError) as error:
        if arguments.debug:
            raise
        warn(error)
        return 1
    except OSError as error:
        if arguments.debug:
            raise
        warn(error.strerror if error.strerror and error.filename is None else error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
