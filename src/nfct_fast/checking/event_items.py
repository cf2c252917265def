"""Preconditions of events in one network namespace, in which the calling thread is."""

import os
from contextlib import ExitStack, closing

from nfct_fast.checking.findings import limited, missing, ok, reason_of, unknown
from nfct_fast.events.open_sources import NETLINK_NETFILTER
from nfct_fast.events.preflight import (
    EVENTS_OFF,
    LOOPBACK_DOWN,
    NEEDS_NET_ADMIN,
    NO_MODULE,
    Probe,
    are_events_off,
    await_answers,
    missing_account,
    wake_ctnetlink,
)
from nfct_fast.events.table_fill import LEVELS, TableFill, full_table, percentage
from nfct_fast.events.tracking_rules import TrackingTable
from nfct_fast.kernel.netlink import NetlinkSocket

_SYSCTL = "/proc/sys/net/netfilter"
_MODULE = "/sys/module/nf_conntrack_netlink"
_NO_SETTING = "there is no {}: nf_conntrack is not loaded, or the namespace is an unprivileged user's"
FAMILIES = ("IPv4", "IPv6")


class EventsCheck:
    """The answers of the kernel's connection tracking, each asked for once.

    Args:
        track: Whether to turn tracking on while it is tested, as --track does.

    Attributes:
        tracked: The address families whose flows are tracked, of FAMILIES.
    """

    def __init__(self, track):
        self.tracked = ()
        self._track = track

    def modules(self):
        was_loaded = os.path.exists(_MODULE)
        try:
            answers = wake_ctnetlink()
        except PermissionError:
            if os.path.exists("/sys/module/nf_conntrack") or os.path.exists(_SYSCTL):
                return unknown(f"nf_conntrack is there; {NEEDS_NET_ADMIN.what} to ask for nf_conntrack_netlink")
            return unknown(NEEDS_NET_ADMIN.what)
        if not answers:
            return missing(NO_MODULE)
        loaded = not was_loaded and os.path.exists(_MODULE)
        return ok("nf_conntrack and nf_conntrack_netlink answer" + (" (loaded by this check)" if loaded else ""))

    def events(self):
        if are_events_off():
            return missing(EVENTS_OFF)
        if not os.path.exists(f"{_SYSCTL}/nf_conntrack_events"):
            return unknown(_NO_SETTING.format("nf_conntrack_events"))
        return ok("the kernel sends events")

    def tracking(self):
        """Whether flows are tracked, by a datagram of each family; takes half a second if they are not."""
        with ExitStack() as stack:
            if self._track:
                try:
                    stack.enter_context(closing(TrackingTable()))
                except OSError as error:
                    return missing(reason_of(error))
            try:
                probe = stack.enter_context(closing(Probe()))
            except PermissionError as error:
                return unknown(error.strerror.what)
            await_answers([probe])
            self.tracked, reasons = tuple(probe.tracked()), probe.reasons()
        if not reasons:
            return ok("flows are tracked" + (", by --track" if self._track else ""))
        [reason] = reasons
        if reason in (NO_MODULE, EVENTS_OFF):
            return unknown(reason.what)
        if reason.remedy is None:
            return unknown(reason.what, "ip link set lo up" if reason == LOOPBACK_DOWN else None)
        what = f"{reason.what}; --track tracks them while the program runs"
        return (limited if self.tracked else missing)(what, reason.remedy)


def account(name):
    """Whether the kernel keeps what a FLOW record has of a flow's bytes or times."""
    try:
        problem = missing_account(name)
    except FileNotFoundError:
        return unknown(_NO_SETTING.format(name))
    return limited(problem) if problem is not None else ok(f"{name} is on")


def receive_buffer(size):
    """Whether the kernel gives a receive buffer of `size` bytes."""
    with closing(NetlinkSocket(NETLINK_NETFILTER)) as sock:
        granted = sock.set_receive_buffer(size) // 2
    if granted >= size:
        return ok(f"{size >> 20} MiB are granted")
    return limited(
        f"{granted >> 10} KiB are granted of {size >> 20} MiB, so that bursts of flows get lost sooner: without "
        "CAP_NET_ADMIN in the initial user namespace, net.core.rmem_max is the limit",
        f"sysctl net.core.rmem_max={size}",
    )


def table():
    """How full the conntrack table is."""
    with closing(TableFill()) as fill:
        usage = fill.usage()
    if usage is None:
        return unknown(_NO_SETTING.format("nf_conntrack_count"))
    return judge_usage(*usage)


def judge_usage(count, most):
    percent = percentage(count, most)
    if percent >= LEVELS[-1]:
        return missing(full_table(count, most))
    if percent >= LEVELS[0]:
        return limited(full_table(count, most))
    return ok(f"{percent} % full: {count} of {most} entries")
