"""What the program tells the service manager that started it: sd_notify(3), as systemd and others understand it."""

import os
import select
import socket
import time

from nfct_fast.kernel.interval_timer import IntervalTimer

_STATUS_US = 30_000_000  # how often the status is told where no watchdog asks for more
_READER_S = 10  # a turn of the reading thread takes a second or two, however much there is to do
_READY_WAIT_MS = 5000  # a manager that takes nothing for longer will time the start out by itself


class ServiceManager:
    """The manager that $NOTIFY_SOCKET names; nothing is sent if there is none.

    It is connected at once, so that what is sent later needs neither the right to reach the socket's path nor a system
    call that makes sockets. The variables are removed from the environment: no process started later takes itself for
    the service.

    Args:
        warn: Called with a sentence if the variables are not usable.
    """

    def __init__(self, warn):
        self._conntrack, self._socket, self.timer = None, None, None
        self._turns, self._turned = None, 0.0
        self._ends = False
        address = os.environ.pop("NOTIFY_SOCKET", "")
        interval = os.environ.pop("WATCHDOG_USEC", "")
        process = os.environ.pop("WATCHDOG_PID", "")
        if not address:
            return
        self._watchdog_us = _watchdog(interval, process)
        try:
            self._socket = _connected(address)
        except (OSError, ValueError) as error:
            warn(f"the service manager is not told anything: NOTIFY_SOCKET: {getattr(error, 'strerror', 0) or error}")
            return
        # Half of the time after which the manager takes the program for stuck, as sd_watchdog_enabled(3) advises.
        self.timer = IntervalTimer(min(max(1, self._watchdog_us // 2) if self._watchdog_us else _STATUS_US, _STATUS_US))

    def ready(self, conntrack) -> None:
        """Tell that all is open and the privileges are given up. Blocks for up to 5 seconds if the manager is busy.

        Args:
            conntrack: Whose counts are the status, and whose reading thread has to work for the watchdog to be calmed.
        """
        if self._socket is None:
            return
        self._conntrack = conntrack
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        poll.poll(_READY_WAIT_MS)
        self._send("READY=1", self._status())

    def beat(self) -> None:
        """Tell, when that is due, the counts, and that this thread and the reading one work."""
        if self.timer is None or not self.timer.expired():
            return
        lines = [self._status()]
        if self._watchdog_us and self._is_reading():
            lines.append("WATCHDOG=1")
        self._send(*lines)

    def stopping(self) -> None:
        """Tell, once, that the program ends."""
        if not self._ends:
            self._send("STOPPING=1")
        self._ends = True

    def _is_reading(self):
        now, turns = time.monotonic(), self._conntrack._turns()
        if turns is None or turns != self._turns:
            self._turns, self._turned = turns, now
        return now - self._turned < _READER_S

    def _status(self):
        stats = self._conntrack.stats()
        return f"STATUS={stats.events} events, {stats.lost} lost"

    def _send(self, *lines):
        if self._socket is None:
            return
        try:
            # Not settimeout(), whose ioctl(2) the sandbox does not let through.
            self._socket.send("\n".join(lines).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it is gone, or busy: the next beat tells the same


def _watchdog(interval, process):
    """The microseconds within which the manager has to hear of this process; 0 if it does not listen for it."""
    if process and process != str(os.getpid()):
        return 0
    return int(interval) if interval.isascii() and interval.isdecimal() and len(interval) < 19 else 0


def _connected(address):
    if address[0] == "@":
        address = "\0" + address[1:]
    elif address[0] != "/":
        raise ValueError("it is neither an absolute path nor an abstract address")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock
