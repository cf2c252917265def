"""Tells why no conntrack event can ever arrive in this network namespace, which the kernel itself never says."""
import errno
import select
import socket
import struct
import time
from pathlib import Path

from .netlink import NetlinkSocket

_NETLINK_NETFILTER = 12
_NFNLGRP_CONNTRACK_NEW = 1
_CTNETLINK_GET_STATS = (1 << 8) | 5          # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS
_NLM_F_REQUEST_ACK = 1 | 4
_NLMSG_ERROR = 2
_CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 2, 3
_ANSWER_SECONDS = 0.5
_SYSCTL = Path("/proc/sys/net/netfilter")
_LOOPBACK = {"IPv4": (socket.AF_INET, "127.0.0.1"), "IPv6": (socket.AF_INET6, "::1")}

NO_MODULE = ("this kernel's conntrack sends no events: the modules nf_conntrack and nf_conntrack_netlink are missing. "
             "Try `modprobe nf_conntrack_netlink`")
EVENTS_OFF = ("net.netfilter.nf_conntrack_events is 0 in this network namespace, so no event is sent. "
              "Set it with `sysctl net.netfilter.nf_conntrack_events=2`")
NO_RULE = ("{what} not tracked: no rule in this network namespace uses conntrack (or loopback, where this was tried, is "
           "exempt). Use --track, or add a rule that uses conntrack, such as `nft add table inet t; "
           "nft add chain inet t c; nft add rule inet t c ct state new`")
UNTESTED = ("whether flows are tracked could not be tried, since loopback is down in this network namespace. "
            "If no line appears, use --track")


def wake_ctnetlink() -> bool:
    """Have the kernel load nf_conntrack_netlink, if it is a module, before any event matters; False if it has none.

    The first bind would load it too, but asynchronously, and the first events would be lost.
    """
    try:
        request = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):      # not even nfnetlink
            return False
        raise
    with request:
        request.bind((0, 0))
        request.settimeout(5)
        request.send(struct.pack("=IHHIIBBH", 20, _CTNETLINK_GET_STATS, _NLM_F_REQUEST_ACK, 1, 0, 0, 0, 0))
        answer = request.recv(65536)
    kind, = struct.unpack_from("=H", answer, 4)
    if kind != _NLMSG_ERROR:
        return True
    code, = struct.unpack_from("=i", answer, 16)
    if code == -errno.EPERM:
        raise PermissionError(errno.EPERM, "conntrack events need CAP_NET_ADMIN in this network namespace (run as root)")
    return code not in (-errno.EINVAL, -errno.EOPNOTSUPP)


def _port(kind, port):
    return struct.pack("=HH", 6, kind) + struct.pack(">H", port)


def _event_arrives(listener, sport, dport):
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        try:
            messages = listener.messages_now()
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return True     # more events than the buffer holds: there is no lack of them
            raise
        if any(_port(_CTA_PROTO_SRC_PORT, sport) in m and _port(_CTA_PROTO_DST_PORT, dport) in m for m in messages):
            return True
    return False


def _is_tracked(family, address):
    """Whether a datagram sent over loopback brings its event; None if it cannot be sent."""
    listener = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        listener.join(_NFNLGRP_CONNTRACK_NEW)
        with (socket.socket(family, socket.SOCK_DGRAM) as receiver, socket.socket(family, socket.SOCK_DGRAM) as sender):
            try:
                receiver.bind((address, 0))
                sender.bind((address, 0))
                sender.sendto(b"", receiver.getsockname())
            except OSError:
                return None
            return _event_arrives(listener, sender.getsockname()[1], receiver.getsockname()[1])
    finally:
        listener.close()


def reasons_for_silence(probe: bool = True) -> list[str]:
    """Why events cannot arrive in the calling thread's network namespace, one sentence each with what to do about it.

    probe: send one empty datagram over loopback for each address family, and wait at most a second for its event;
    without, a namespace in which nothing uses conntrack is not recognised. Needs CAP_NET_ADMIN; raises PermissionError without it.
    """
    if not wake_ctnetlink():
        return [NO_MODULE]
    try:
        if (_SYSCTL / "nf_conntrack_events").read_text().strip() == "0":
            return [EVENTS_OFF]
    except OSError:
        pass        # not shown in namespaces of an unprivileged user; the probe tells
    if not probe:
        return []
    tracked = {name: _is_tracked(*loopback) for name, loopback in _LOOPBACK.items()}
    silent = [name for name, answer in tracked.items() if answer is False]
    if silent:
        only = not any(tracked.values())
        return [NO_RULE.format(what="new flows are" if only else f"{silent[0]} flows are")]
    return [UNTESTED] if not any(tracked.values()) else []
