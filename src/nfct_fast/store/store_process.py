"""The process nfct-store: started before privileges are given up, it writes what comes through a pipe into a store.

It says what happens through a socket, a JSON object each: {"ready": true} or {"error": ...} first, then notices and
counts. It ignores all signals but SIGKILL and SIGSTOP, and ends when the pipe does, after all was committed.
"""

import json
import os
import socket

from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.store.place import lock
from nfct_fast.store.store_error import StoreError
from nfct_fast.store.store_writer import StoreWriter

NAME = "nfct-store"


class _Channel:
    """What is said to the program. It may be gone, or not listen: then nothing is said."""

    def __init__(self, sock):
        self._socket = sock
        self._unsaid = []

    def tell(self, **facts):
        """Send one message, after those that could not be sent before."""
        self._unsaid.append(json.dumps(facts).encode())
        del self._unsaid[:-100]
        try:
            while self._unsaid:
                self._socket.send(self._unsaid[0], socket.MSG_DONTWAIT)
                del self._unsaid[0]
        except OSError:
            pass


def be_store(channel, pipe, path, days, size, confine) -> None:
    """Be the process, as kernel/child_process.py has made it; does not return.

    Args:
        channel: The descriptor of the socket.
        pipe: The descriptor the recording comes from.
        path: The directory, prepared.
        days, size: See Retention.
        confine: Called with `path`, to give up all privileges but writing there; returns sentences about what could
            not be given up.
    """
    status = 1
    try:
        os.umask(0o077)
        say = _Channel(socket.socket(fileno=channel))
        try:
            reasons = confine(path)
            lock(path)
            writer = StoreWriter(
                path,
                pipe,
                days=days,
                size=size,
                say=lambda sentence: say.tell(notice=sentence),
                report=lambda: say.tell(stored=writer.stored, unstored=writer.unstored),
            )
            say.tell(ready=True, reasons=reasons)
            writer.run()
            say.tell(stored=writer.stored, unstored=writer.unstored, done=True)
            status = 0
        except (StoreError, RecordingError) as error:
            say.tell(error=str(error))
        except OSError as error:
            say.tell(error=f"{path}: {error.strerror or error}")
        except BaseException as error:
            say.tell(error=f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)
