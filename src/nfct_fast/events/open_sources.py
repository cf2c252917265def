"""Open the netlink socket that receives the conntrack events of one network namespace."""

import contextlib
import errno

from nfct_fast.events.preflight import NEEDS_NET_ADMIN
from nfct_fast.kernel.netlink import Inbox, NetlinkSocket

NETLINK_NETFILTER = 12
GROUPS = {"NEW": 1, "UPDATE": 2, "DESTROY": 3}  # NFNLGRP_CONNTRACK_*
# Events per system call: more than arrive during the longest pause (pacing.pyx) at 40,000 flows/s.
_SLOTS = 512
# An event has 150 to 600 bytes. With a size of 1024, the first cache lines of all slots would share a few cache sets.
_SLOT_SIZE = 1024 + 64


def event_inbox() -> Inbox:
    """Return the receive buffer in user space that all sources of one reading thread use in turn."""
    return Inbox(_SLOTS, _SLOT_SIZE)


def open_event_socket(fd, inbox, groups, program, share, size) -> NetlinkSocket:
    """Open a socket that receives conntrack events.

    Args:
        fd: A netfilter netlink socket of the namespace, which the result takes over; -1 for the calling thread's
            namespace.
        inbox: The result of event_inbox().
        groups: Values of GROUPS.
        program: A classic BPF socket filter, or None.
        share: The Share that the receive buffer is taken from.
        size: Bytes of receive buffer to request.

    Raises:
        PermissionError: CAP_NET_ADMIN in the namespace is missing.
        OSError: The socket cannot be opened.
    """
    socket = NetlinkSocket(NETLINK_NETFILTER, inbox=inbox, fd=fd)
    share.open(socket, size)
    try:
        if program is not None:
            socket.attach_filter(program)
        for group in groups:
            socket.join(group)
    except PermissionError:
        close_event_socket(socket, share)
        raise PermissionError(errno.EPERM, NEEDS_NET_ADMIN) from None
    except BaseException:
        close_event_socket(socket, share)
        raise
    return socket


def close_event_socket(socket, share) -> None:
    """Close a socket from open_event_socket() that no Source has taken over."""
    socket.close()
    share.close(socket)


@contextlib.contextmanager
def explain_descriptor_limit():
    """A context manager that replaces EMFILE by an error that says what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(
            errno.EMFILE,
            "too many open files: each monitored network namespace takes seven descriptors; "
            "raise the limit (ulimit -n, LimitNOFILE= in a unit)",
        ) from None
