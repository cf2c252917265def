"""What opens files and connections anew for a process that has given up the rights to do so: a helper process."""

import os
import socket

_TIMEOUT_S = 5.0
_NAME = "nfct-outputs"
_GONE = "the helper process that opens it is gone"


def _serve(fd, open_one):
    with socket.socket(fileno=fd) as asker:
        while asker.recv(1):
            try:
                opened = open_one()
            except OSError as error:
                asker.send(str(error.strerror or error).encode(errors="backslashreplace")[:1000] or b"?")
            else:
                socket.send_fds(asker, [b"\0"], [opened])
                os.close(opened)


class RemoteOpener:
    """A function without arguments that has a helper process open something, and returns a descriptor.

    Args:
        spawn: Rights.spawn_opener().
        prepare: Called in the helper; returns the function that opens, and may do no more than that.
    """

    def __init__(self, spawn, prepare):
        def work():
            open_one = prepare()
            return lambda fd: _serve(fd, open_one)

        self._pid, fd = spawn(_NAME, work)
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(_TIMEOUT_S)  # now: later the filter of system calls does not permit it

    def __call__(self) -> int:
        """Return a new descriptor. OSError, with the helper's reason."""
        try:
            self._socket.send(b"o")
            message, descriptors, _, _ = socket.recv_fds(self._socket, 1024, 1, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            self._socket.close()  # lest its late answer is taken for another one's
            raise OSError("the helper process that opens it does not answer") from None
        except ConnectionError:
            raise OSError(_GONE) from None
        if descriptors:
            return descriptors[0]
        if not message:
            raise OSError(_GONE)
        raise OSError(message.decode(errors="replace"))

    def close(self) -> None:
        """End the helper."""
        self._socket.close()
