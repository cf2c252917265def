"""Try real flows from end to end: a process of our own sends datagrams, and a Conntrack should name it."""

import os
import select
import socket
import subprocess
import sys
import time
import warnings
from contextlib import suppress

from nfct_fast.checking.check_report import TriedFlow
from nfct_fast.checking.findings import limited, missing, ok, reason_of, unknown
from nfct_fast.monitoring.warned import ConntrackWarning

LOOPBACK = {"IPv4": (socket.AF_INET, "127.0.0.1"), "IPv6": (socket.AF_INET6, "::1")}
_SECONDS = 1.0  # how long the events may take
_START_SECONDS = 1.0  # how long the process may take to start
_BUFFER = 1 << 20
# Sends from a socket that stays open and from one that is closed at once; says the ports and times of both.
_SENDER = """\
import socket, sys, time
family, address, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
held = socket.socket(family, socket.SOCK_DGRAM)
brief = socket.socket(family, socket.SOCK_DGRAM)
print("ready", flush=True)
if sys.stdin.readline():
    times = []
    for sender in held, brief:
        times.append(time.time_ns())
        sender.sendto(b"", (address, port))
    ports = held.getsockname()[1], brief.getsockname()[1]
    brief.close()
    print(ports[0], times[0], ports[1], times[1], flush=True)
    sys.stdin.read()
"""


class NotOpened(Exception):
    """The Conntrack could not be opened, because of __cause__."""


class Sender:
    """A process that sends two datagrams when it is told to. It is in the calling thread's network namespace.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, family, address, port):
        if not sys.executable:
            raise OSError("the Python interpreter that runs this has no path, so that no process can be started")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SENDER, str(int(family)), address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        self._rest = b""

    def line(self, seconds):
        """Return its next line, in words. TimeoutError if there is none in time."""
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"the process that was to send did not answer in {seconds:g} s")
            data = os.read(self._process.stdout.fileno(), 4096)
            if not data:
                raise OSError("the process that was to send ended early")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.split()

    def send(self):
        """Have it send. Return (port, time of sending, whether the socket was closed at once) of both datagrams."""
        os.write(self._process.stdin.fileno(), b"\n")
        held, sent, brief, sent_brief = map(int, self.line(_SECONDS))
        return (held, sent, False), (brief, sent_brief, True)

    def close(self):
        """End it. Where that is no longer allowed, it ends by itself, as its input has."""
        self._process.stdin.close()
        self._process.stdout.close()
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(1)
            return
        with suppress(OSError):
            self._process.kill()
            self._process.wait(1)


def _receive(conntrack, wanted):
    """Return the flows with these source ports, {port: Flow}, as far as they come in time."""
    found = {}
    deadline = time.monotonic() + _SECONDS
    left = _SECONDS
    while len(found) < len(wanted) and left > 0:
        left = max(0.0, deadline - time.monotonic())
        for flow in conntrack.read(timeout=left):
            if flow.sport in wanted:
                found.setdefault(flow.sport, flow)
    return found


def _tried(flow, pid, sent, closed_at_once):
    if flow is None:
        return TriedFlow(closed_at_once, None, None, False, None, None)
    owner = flow.owner
    return TriedFlow(
        closed_at_once,
        max(0, flow.time_ns - sent) / 1e6,
        owner.pid,
        owner.pid == pid,
        owner.match and owner.match.value,
        owner.reason and owner.reason.value,
    )


def try_flows(open_conntrack, family, entered, **options) -> tuple[TriedFlow, ...]:
    """Have a process send two datagrams over loopback, and return what a Conntrack says of them.

    Args:
        open_conntrack: Conntrack, or a function like it.
        family: A key of LOOPBACK.
        entered: A function that returns a context manager, in which the thread is in the network namespace.
        options: Arguments of the Conntrack.

    Raises:
        NotOpened: The Conntrack could not be opened.
        OSError: The process cannot be started, or something else went wrong.
    """
    kind, address = LOOPBACK[family]
    with entered():
        receiver = socket.socket(kind, socket.SOCK_DGRAM)
        try:
            receiver.bind((address, 0))
            port = receiver.getsockname()[1]
            sender = Sender(kind, address, port)
        except BaseException:
            receiver.close()
            raise
    try:
        sender.line(_START_SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConntrackWarning)  # the items say it
            try:
                conntrack = open_conntrack(
                    filter=f"udp and host {address} and dport {port}",
                    probe=False,
                    recover=False,
                    rcvbuf=_BUFFER,
                    rcvbuf_limit=_BUFFER,
                    **options,
                )
            except OSError as error:
                raise NotOpened from error
        with conntrack:
            sent = sender.send()
            flows = _receive(conntrack, [one for one, _, _ in sent])
        return tuple(_tried(flows.get(one), sender.pid, when, closed) for one, when, closed in sent)
    finally:
        receiver.close()
        sender.close()


def judge(flows, attribution):
    """Return what tried flows show. flows: see try_flows()."""
    came = [flow for flow in flows if flow.milliseconds is not None]
    if len(came) < len(flows):
        return missing(f"a real flow was made, and its event did not arrive within {_SECONDS:g} s")
    took = f"received after {max(flow.milliseconds for flow in came):.1f} ms"
    if attribution == "off":
        return ok(f"a real flow was {took}; attribution is off")
    wrong = [flow for flow in flows if flow.pid is not None and not flow.right]
    if wrong:
        return missing(f"a real flow was {took}, and named process {wrong[0].pid}, which did not send it")
    named = [flow for flow in flows if flow.right]
    if not named:
        return missing(f"a real flow was {took}, but its process was not found: {flows[0].reason}")
    how = " and ".join(dict.fromkeys(flow.match for flow in named))
    if len(named) < len(flows):
        [unnamed] = [flow for flow in flows if not flow.right]
        which = "whose socket was closed at once" if unnamed.closed_at_once else "whose socket stayed open"
        return limited(f"a real flow was {took}, and its process named by {how}; not that {which}: {unnamed.reason}")
    return ok(f"a real flow was {took}, and its process named by {how}, even if its socket was closed at once")


def not_tried(error):
    """Return what it means that try_flows() raised an error."""
    if isinstance(error, NotOpened):
        return missing(f"the program cannot start: {reason_of(error.__cause__)}")
    return unknown(f"no flow could be tried: {reason_of(error)}")
