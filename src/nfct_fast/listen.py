"""Where events come from: a netlink socket in each network namespace that is listened in."""
import contextlib
import errno

from . import netns
from .diagnosis import Probe, await_answers
from .netlink import NetlinkSocket
from .nftables import TrackingTable
from .source import Source
from .table import Table

_NETLINK_NETFILTER = 12
GROUPS = {"NEW": 1, "UPDATE": 2, "DESTROY": 3}      # NFNLGRP_CONNTRACK_*
_SLOTS = 512          # events a system call: more than come in the longest pause of a reader at 40,000 flows/s
_SLOT_SIZE = 1024 + 64    # an event has 150 to 600 bytes; 1024 alone would put the heads of all slots into few cache sets


def _open_socket(groups, program, rcvbuf):
    socket = NetlinkSocket(_NETLINK_NETFILTER, _SLOTS, _SLOT_SIZE)
    try:
        socket.set_receive_buffer(rcvbuf)
        if program is not None:
            socket.attach_filter(program)
        for group in groups:
            socket.join(group)
    except PermissionError:
        socket.close()
        raise PermissionError(errno.EPERM, "conntrack events need CAP_NET_ADMIN in the network namespace "
                                           "(run as root)") from None
    except BaseException:
        socket.close()
        raise
    return socket


def _spaces(spec, most):
    """The namespaces to be listened in, None for the thread's own."""
    if spec is None:
        return [None]
    spaces = netns.resolve(spec)
    if len(spaces) > most:
        raise OSError(errno.E2BIG, f"{len(spaces)} network namespaces, and no more than {most} can be heard at once: "
                                   "run the program for each that matters, by its name")
    return spaces


@contextlib.contextmanager
def _descriptors():
    """Says of a lack of them what to do."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(errno.EMFILE, "too many open files: each network namespace that is heard takes six; allow more "
                                    "(ulimit -n, LimitNOFILE= in a unit)") from None


def _entered(space):
    return space.entered() if space is not None else contextlib.nullcontext()


def _reasons_for_silence(spaces, tables, track, probe):
    """Why events may never come from the spaces, where tracking is turned on first if that is asked for."""
    with contextlib.ExitStack() as stack:
        probes = []
        for space in spaces:
            with _entered(space):
                if track:
                    tables.append(TrackingTable())
                probes.append(stack.enter_context(contextlib.closing(Probe(probe))))
        await_answers(probes)
        return [("" if space is None else f"network namespace {space.name}: ") + reason
                for space, probe in zip(spaces, probes) for reason in probe.reasons()]


@_descriptors()
def open_sources(reader, tables, spec, groups, program, rcvbuf, track, probe, recover) -> tuple[str, ...]:
    """Add a source to the reader for each namespace that `spec` means; return why events may never come from them.

    Tracking tables made for `track` are appended to `tables`. OSError if a namespace cannot be listened in.
    """
    spaces = _spaces(spec, reader.most)
    # Before the sources are there, or they would hear the probes.
    silence = _reasons_for_silence(spaces, tables, track, probe)
    for space in spaces:
        with space or contextlib.nullcontext(), _entered(space):
            socket = _open_socket(groups, program, rcvbuf)
            table = Table() if recover and GROUPS["NEW"] in groups else None
            reader.add(Source(socket, groups, table, reader.attribution.add_home(space), netns.current()))
    return tuple(silence)
