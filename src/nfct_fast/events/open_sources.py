"""Where events come from: a netlink socket in each network namespace that is listened in."""
import contextlib
import errno
import time

from nfct_fast.kernel import netns
from nfct_fast.events.preflight import Probe, await_answers
from nfct_fast.kernel.netlink import Inbox, NetlinkSocket
from nfct_fast.events.source import Source
from nfct_fast.events.conntrack_dump import ConntrackDump

_NETLINK_NETFILTER = 12
GROUPS = {"NEW": 1, "UPDATE": 2, "DESTROY": 3}      # NFNLGRP_CONNTRACK_*
_SLOTS = 512          # events a system call: more than come in the longest pause of a reader at 40,000 flows/s
_SLOT_SIZE = 1024 + 64    # an event has 150 to 600 bytes; 1024 alone would put the heads of all slots into few cache sets


def _open_socket(fd, inbox, groups, program, share, size):
    socket = NetlinkSocket(_NETLINK_NETFILTER, inbox=inbox, fd=fd)
    share.open(socket, size)
    try:
        if program is not None:
            socket.attach_filter(program)
        for group in groups:
            socket.join(group)
    except PermissionError:
        _close(socket, share)
        raise PermissionError(errno.EPERM, "conntrack events need CAP_NET_ADMIN in the network namespace "
                                           "(run as root)") from None
    except BaseException:
        _close(socket, share)
        raise
    return socket


def _close(socket, share):
    socket.close()
    share.close(socket)


@contextlib.contextmanager
def descriptors():
    """Says of a lack of them what to do."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(errno.EMFILE, "too many open files: each network namespace that is heard takes seven; allow more "
                                    "(ulimit -n, LimitNOFILE= in a unit)") from None


def _entered(space):
    return space.entered() if space is not None else contextlib.nullcontext()


def prefix(space):
    """What a sentence about a namespace begins with; None, or one without a name: the thread's own."""
    return f"network namespace {space.name}: " if space is not None and space.name else ""


class Listener:
    """Opens sources for the reader. door: gets sockets of other namespaces. tracking: a Tracking to turn it on for the wanted pairs
    of family and protocol, or None. enters: a thread that begins later may enter namespaces."""

    def __init__(self, reader, opener, tracking, enters, wanted, groups, program, recover):
        self.reader = reader
        self.tracking = tracking
        self._door, self._enters = opener, enters
        self._attribution = reader.intake.attribution
        self._wanted, self._groups, self._program = wanted, groups, program
        self._recover = recover and GROUPS["NEW"] in groups
        self._inbox = Inbox(_SLOTS, _SLOT_SIZE)
        self._tracked = {}      # {inode: what Tracking.remove takes}

    def prepare(self, spaces, probe) -> list[str]:
        """Turn tracking on in the spaces, if that is asked for: why events may never come from them, a sentence each.

        Before the sources are there, or they would hear the probes.
        """
        with contextlib.ExitStack() as stack:
            probes = []
            for space in spaces:
                with _entered(space):
                    self.track(space)
                    probes.append(stack.enter_context(contextlib.closing(Probe(probe))))
            await_answers(probes)
            return [prefix(space) + reason for space, probe in zip(spaces, probes) for reason in probe.reasons()]

    def track(self, space):
        """Turn tracking on in the calling thread's namespace, if that is asked for."""
        if self.tracking is not None and (inode := netns.current()) not in self._tracked:
            self._tracked[inode] = self.tracking.add(prefix(space), self._wanted)

    def open(self, space, share, size, greet=False) -> Source:
        """Have the reader read a namespace, None for the thread's own, with a receive buffer of `size` bytes of the share.

        greet: it came later; also tell the flows that its table has already. Reads its table. OSError.
        """
        inode = netns.current() if space is None else space.inode
        since = time.monotonic_ns()
        source = None
        try:
            if self.tracking is not None and (self._enters or not greet):
                with _entered(space):
                    self.track(space)
            socket = _open_socket(self._descriptor(space), self._inbox, self._groups, self._program, share, size)
            try:
                table = ConntrackDump(self._descriptor(space)) if self._recover else None
                number = self._attribution.monitor(space)
            except BaseException:
                _close(socket, share)
                raise
            source = Source(socket, self._groups, table, number, inode, share, since)
            source.greet() if greet else source.seed()
            self.reader.add(source)
        except BaseException:
            self._untrack(inode)
            if source is not None:
                source.close()
                self._attribution.stop_monitoring(source.index)
            raise
        return source

    def _descriptor(self, space):
        return -1 if space is None else self._door.socket(space, _NETLINK_NETFILTER)

    def collect(self) -> None:
        """Free what the reader has let go."""
        for source in self.reader.sources.collect():
            self._attribution.stop_monitoring(source.index)
            self._untrack(source.inode)

    def _untrack(self, inode):
        if inode in self._tracked:
            self.tracking.remove(self._tracked.pop(inode))


def open_one(listener, spec, share, size, probe) -> tuple[str, ...]:
    """Listen in the namespace that `spec` means, None for the thread's own; why events may never come from it. OSError."""
    with contextlib.ExitStack() as stack:
        spaces = [None] if spec is None else [stack.enter_context(space) for space in netns.resolve(spec)]
        silence = listener.prepare(spaces, probe)
        for space in spaces:
            listener.open(space, share, size)
    return tuple(silence)
