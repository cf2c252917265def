"""Find out why no conntrack event can arrive in a network namespace, for which the kernel reports no error."""

import contextlib
import errno
import os
import select
import socket
import struct
import time
from pathlib import Path

from nfct_fast.kernel.netlink import NetlinkSocket
from nfct_fast.text.problem import Problem

_NETLINK_NETFILTER = 12
_NFNLGRP_CONNTRACK_NEW = 1
_CTNETLINK_GET_STATS = (1 << 8) | 5  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS
_CTNETLINK_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_NLM_F_REQUEST = 1
_NLM_F_REQUEST_ACK = 1 | 4
_NLMSG_ERROR = 2
_CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 2, 3
_CTA_IDENTITY = (1, 12, 18)  # CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE
_PROBE_SECONDS = 0.5
_SYSCTL = Path("/proc/sys/net/netfilter")
_LOOPBACK = {"IPv4": (socket.AF_INET, "127.0.0.1"), "IPv6": (socket.AF_INET6, "::1")}

NO_MODULE = Problem(
    "no connections can be logged: the kernel modules nf_conntrack and nf_conntrack_netlink are missing",
    "Try",
    "modprobe nf_conntrack_netlink",
)
EVENTS_OFF = Problem(
    "net.netfilter.nf_conntrack_events is 0 in this network namespace, so the kernel sends no events",
    "Set it with",
    "sysctl net.netfilter.nf_conntrack_events=2",
)
LOOPBACK_DOWN, LOOPBACK_FORBIDDEN = (
    Problem(f"could not test whether flows are tracked, because {why}", "If no connections are logged, use --track")
    for why in (
        "loopback is down in this network namespace",
        "this process may send nothing over loopback, as RestrictAddressFamilies= and IPAddressDeny= of a unit have it",
    )
)
NEEDS_NET_ADMIN = Problem("conntrack events need CAP_NET_ADMIN in the network namespace", "Run it as root")
ACCOUNTS = {
    "nf_conntrack_acct": "records of flows will have no bytes and packets",
    "nf_conntrack_timestamp": "how long flows last is measured by when their events were received",
}


def no_rule(flows) -> Problem:
    """flows: Which flows are not tracked, such as "IPv6 flows"."""
    return Problem(
        f"{flows} are not tracked: no firewall rule in this network namespace uses conntrack (or a rule exempts "
        "loopback, where this was tested)",
        "Use --track, or add a rule that uses conntrack, such as",
        "nft 'add table inet t; add chain inet t c; add rule inet t c ct state new'",
    )


def wake_ctnetlink() -> bool:
    """Have the kernel load nf_conntrack_netlink. Return False if it has no such module.

    Joining a multicast group would load it too, but asynchronously, and the first events would be lost.

    Raises:
        PermissionError: CAP_NET_ADMIN is missing.
    """
    try:
        request = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):  # not even nfnetlink
            return False
        raise
    with request:
        request.bind((0, 0))
        request.connect((0, 0))  # to the kernel, so that datagrams from processes are refused
        request.settimeout(5)
        request.send(struct.pack("=IHHIIBBH", 20, _CTNETLINK_GET_STATS, _NLM_F_REQUEST_ACK, 1, 0, 0, 0, 0))
        answer = request.recv(65536)
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _NLMSG_ERROR:
        return True
    (code,) = struct.unpack_from("=i", answer, 16)
    if code == -errno.EPERM:
        raise PermissionError(errno.EPERM, NEEDS_NET_ADMIN)
    return code not in (-errno.EINVAL, -errno.EOPNOTSUPP)


def _port(kind, port):
    return struct.pack("=HH", 6, kind) + struct.pack(">H", port)


class _Flow:
    """An empty datagram sent over loopback, whose conntrack event shows that flows are tracked.

    Attributes:
        tracked: True once the event has arrived, False before, None if the datagram could not be sent.
        error: The errno why it could not be sent.
        event: The event, once it has arrived.
    """

    def __init__(self, family, address):
        self.tracked = self.event = self.error = None
        self._family = int(family)
        self._ends = []
        try:
            for _ in range(2):
                self._ends.append(socket.socket(family, socket.SOCK_DGRAM))
                self._ends[-1].bind((address, 0))
            sender, receiver = (end.getsockname() for end in self._ends)
            self._ends[0].sendto(b"", receiver)
            self._ports = _port(_CTA_PROTO_SRC_PORT, sender[1]), _port(_CTA_PROTO_DST_PORT, receiver[1])
            self.tracked = False
        except OSError as error:
            self.close()
            self.error = error.errno
            if error.errno == errno.EMFILE:
                raise

    def receive(self, messages, overrun):
        """Look for the event in messages of the kernel; after an overrun, any event of the address family will do."""
        for message in messages:
            if self.tracked is not False:
                return
            if all(port in message for port in self._ports):
                self.tracked, self.event = True, message
            elif overrun and message[16] == self._family:  # nfgenmsg.nfgen_family
                self.tracked = True

    def close(self):
        for end in self._ends:
            end.close()


class Probe:
    """A test of whether events can arrive in the calling thread's network namespace.

    Args:
        try_loopback: Whether to send one empty datagram per address family over loopback and expect its event. Without
            that, a namespace in which nothing uses conntrack is not recognized.

    Raises:
        PermissionError: CAP_NET_ADMIN is missing.
    """

    def __init__(self, try_loopback=True):
        self._flows, self._listener, self._reasons = {}, None, []
        self._overrun = False
        if not wake_ctnetlink():
            self._reasons = [NO_MODULE]
        elif are_events_off():
            self._reasons = [EVENTS_OFF]
        elif try_loopback:
            self._listener = NetlinkSocket(_NETLINK_NETFILTER)
            self._listener.join(_NFNLGRP_CONNTRACK_NEW)
            for name, loopback in _LOOPBACK.items():
                self._flows[name] = _Flow(*loopback)

    def fileno(self):
        return self._listener.fileno()

    def is_waiting(self):
        """Whether an event is still expected."""
        return any(flow.tracked is False for flow in self._flows.values())

    def receive(self):
        """Receive the events that have arrived."""
        try:
            messages = self._listener.messages_now()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._overrun = True  # by itself it shows nothing: root of the namespace's user namespace can cause it
            return
        for flow in self._flows.values():
            flow.receive(messages, self._overrun)

    def close(self):
        for flow in self._flows.values():
            flow.close()
            if flow.event is not None:
                self._delete(flow.event)
        if self._listener is not None:
            self._listener.close()

    def _delete(self, event):
        """Delete the conntrack entry that the event is about, lest it is reported when it ends."""
        body, at = event[16:20], 20
        while at + 4 <= len(event):
            size, kind = struct.unpack_from("=HH", event, at)
            if kind & 0x3FFF in _CTA_IDENTITY:
                body += event[at : at + size].ljust((size + 3) & ~3, b"\0")
            at += max(4, (size + 3) & ~3)
        header = struct.pack("=IHHII", 16 + len(body), _CTNETLINK_DELETE, _NLM_F_REQUEST, 0, 0)
        with contextlib.suppress(OSError):
            os.write(self._listener.fileno(), header + body)

    def tracked(self) -> list[str]:
        """Return the address families, "IPv4" and "IPv6", whose flows are tracked. Call after await_answers()."""
        return [name for name, flow in self._flows.items() if flow.tracked]

    def reasons(self) -> list[Problem]:
        """Return why events cannot arrive and what to do about it. Call after await_answers()."""
        if not self._flows:
            return self._reasons
        untracked = [name for name, flow in self._flows.items() if flow.tracked is False]
        if untracked:
            return [no_rule(f"{untracked[0]} flows" if self.tracked() else "new flows")]
        if self.tracked():
            return []
        # The kernel says EAFNOSUPPORT too, of IPv6 where that is off, but never of IPv4.
        forbidden = self._flows["IPv4"].error in (errno.EAFNOSUPPORT, errno.EPERM)
        return [LOOPBACK_FORBIDDEN if forbidden else LOOPBACK_DOWN]


def are_events_off() -> bool:
    """Whether the kernel is told to send no events in the calling thread's network namespace."""
    try:
        return (_SYSCTL / "nf_conntrack_events").read_text().strip() == "0"
    except OSError:
        return False  # the file is missing in namespaces of unprivileged users; the datagrams show it then


def missing_account(name) -> Problem | None:
    """Return what the kernel will not say of a flow at its end in the calling thread's network namespace.

    Args:
        name: The sysctl, one of ACCOUNTS.

    Raises:
        OSError: It cannot be read: in namespaces of unprivileged users it is not there.
    """
    if (_SYSCTL / name).read_text().strip() != "0":
        return None
    return Problem(ACCOUNTS[name], "For flows that begin afterwards, set it with", f"sysctl net.netfilter.{name}=1")


def missing_accounts() -> list[Problem]:
    """The same of all of ACCOUNTS, as far as they can be read."""
    reasons = []
    for name in ACCOUNTS:
        with contextlib.suppress(OSError):
            reasons.append(missing_account(name))
    return [reason for reason in reasons if reason is not None]


def await_answers(probes) -> None:
    """Wait until all probes have received their events, for half a second in total."""
    waiting = {probe.fileno(): probe for probe in probes if probe.is_waiting()}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + _PROBE_SECONDS
    left = _PROBE_SECONDS
    while waiting and left > 0:
        # At the end once more without waiting: the machine may have stood still with the events queued.
        left = max(0.0, deadline - time.monotonic())
        for fd, _ in poll.poll(left * 1000):
            waiting[fd].receive()
            if not waiting[fd].is_waiting():
                poll.unregister(fd)
                del waiting[fd]
