"""How the program is asked to end, and how it learns that nobody reads its output."""

import os
import select
import signal


class Stop:
    """A descriptor that SIGINT, SIGTERM and SIGHUP make readable, so that no wait can miss them.

    reopens: SIGHUP does not ask to end, but to open files again.
    """

    def __init__(self, reopens=False):
        self.asked = False
        self._reopens, self._reopen_asked = reopens, False
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or reopens or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
                signal.signal(number, self._handle)

    def _handle(self, number, frame):
        if number == signal.SIGHUP and self._reopens:
            self._reopen_asked = True
        else:
            self.asked = True

    def reopen_asked(self) -> bool:
        """Return whether files are to be opened again, once for each time that this was asked for."""
        asked, self._reopen_asked = self._reopen_asked, False
        return asked

    def drain(self) -> None:
        """Make the descriptor not readable."""
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass


def is_reader_gone(fd) -> bool:
    """Return whether the other end of a pipe or terminal is closed."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))


def fill_standard_descriptors() -> None:
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed, lest a socket gets its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
