"""Open sources for the reading thread: the only place where events, attribution and tracking of a namespace meet."""

import contextlib
import errno
import time

from nfct_fast.events.conntrack_dump import ConntrackDump
from nfct_fast.events.open_sources import GROUPS, NETLINK_NETFILTER, close_event_socket, event_inbox, open_event_socket
from nfct_fast.events.preflight import NO_MODULE, Probe, await_answers, missing_accounts, wake_ctnetlink
from nfct_fast.events.source import Source
from nfct_fast.kernel import netns


def _entered(space):
    return space.entered() if space is not None else contextlib.nullcontext()


def _prefix(space):
    """Return how a notice about the namespace begins: with nothing for the calling thread's own."""
    return f"network namespace {space.name}: " if space is not None and space.name else ""


class SourceOpener:
    """An opener of sources, which it adds to the reader.

    Args:
        reader: The Reader that is to read them.
        resolver: The Resolver, which must know each namespace that events come from.
        opener: The namespaces.opener.Opener that makes sockets in other namespaces.
        tracking: A Tracking that turns connection tracking on, or None.
        can_enter: Whether threads may still enter other namespaces after the start.
        flow_filter: Which flows are wanted, a FlowFilter.
        notices: Notices, for what records of whole flows will lack.
        groups: Values of events.open_sources.GROUPS.
        recover: Whether to recover lost flows from the conntrack table.
        whole_flows: Whether there is one record per flow at its end, so that flows that exist have to be known.
        listing: Whether the conntrack tables are to be listed; `groups` is then empty.
        tables: Whether to open a ConntrackDump more of each namespace, in `tables`, for another thread's use.

    Attributes:
        tables: {inode of a monitored namespace: ConntrackDump}
    """

    def __init__(
        self,
        reader,
        resolver,
        opener,
        tracking,
        can_enter,
        flow_filter,
        notices,
        *,
        groups,
        recover,
        whole_flows=False,
        listing=False,
        tables=False,
    ):
        self.tracking = tracking
        self.tables, self._open_tables = {}, tables
        self._reader, self._resolver, self._opener = reader, resolver, opener
        self._can_enter = can_enter
        self._filter, self._groups = flow_filter, groups
        self._recover = recover and GROUPS["NEW"] in groups or listing
        self._listing = listing
        self._notices, self._whole_flows = notices, whole_flows
        self._inbox = event_inbox()
        self._tracked = {}  # {inode: what Tracking.remove() takes}

    @property
    def capacity(self) -> int:
        """The most namespaces that can be read at once, int."""
        return self._reader.sources.capacity

    def prepare(self, spaces, probe) -> list[str]:
        """Turn tracking on in the namespaces, if requested, and return why events may never come from them.

        Call before open(), or the sources would receive the events of the probes. Blocks for up to half a second.
        """
        if self._listing:
            if not wake_ctnetlink():
                raise OSError(errno.EPROTONOSUPPORT, NO_MODULE)
            return []
        lacking = {}
        with contextlib.ExitStack() as stack:
            probes = []
            for space in spaces:
                with _entered(space):
                    self._track(space)
                    if self._whole_flows:
                        for missing in missing_accounts():
                            lacking.setdefault(missing, []).append(_prefix(space))
                    probes.append(stack.enter_context(contextlib.closing(Probe(probe))))
            await_answers(probes)
            for missing, prefixes in lacking.items():
                more = f" (and {len(prefixes) - 1} more)" if len(prefixes) > 1 else ""
                self._notices.add(prefixes[0].removesuffix(": ") + more + ": " * bool(prefixes[0] or more) + missing)
            return [_prefix(space) + reason for space, probe in zip(spaces, probes) for reason in probe.reasons()]

    def _track(self, space):
        if self.tracking is not None and (inode := netns.current()) not in self._tracked:
            self._tracked[inode] = self.tracking.add(_prefix(space), self._filter.protocols)

    def open(self, space, share, size, report_existing=False) -> Source:
        """Open a namespace's source and add it to the reader. Blocks while the conntrack table is dumped.

        Args:
            space: An open Netns; None for the calling thread's own namespace.
            share: The Share that its receive buffer is taken from.
            size: Bytes of receive buffer to request.
            report_existing: Whether to report the flows that are in the table already.

        Raises:
            OSError: The source cannot be opened.
        """
        inode = netns.current() if space is None else space.inode
        since = time.monotonic_ns()
        source = None
        try:
            if self.tracking is not None and (self._can_enter or not report_existing):
                with _entered(space):
                    self._track(space)
            socket = open_event_socket(
                self._socket(space), self._inbox, self._groups, self._filter.socket_filter, share, size
            )
            dump = None
            try:
                if self._recover:
                    dump = ConntrackDump(self._socket(space))
                if self._open_tables:
                    self.tables[inode] = ConntrackDump(self._socket(space))
                number = self._resolver.monitor(space)
            except BaseException:
                # Now, not when the garbage collector finds the traceback that refers to it.
                close_event_socket(socket, share)
                if dump is not None:
                    dump.socket.close()
                raise
            source = Source(socket, self._groups, dump, number, inode, share, since)
            if self._listing:
                source.list_entries()
            elif report_existing or self._whole_flows:
                source.load_existing()
            else:
                source.seed()
            self._reader.add(source)
        except BaseException:
            self._untrack(inode)
            self.tables.pop(inode, None)
            if source is not None:
                source.close()
                self._resolver.stop_monitoring(source.index)
            raise
        return source

    def _socket(self, space):
        return -1 if space is None else self._opener.socket(space, NETLINK_NETFILTER)

    def open_namespaces(self, spec, share, size, probe) -> tuple[str, ...]:
        """Open sources in the namespaces of `spec` (None: the calling thread's). Return why events may never come."""
        with contextlib.ExitStack() as stack:
            spaces = [None] if spec is None else [stack.enter_context(space) for space in netns.resolve(spec)]
            reasons = self.prepare(spaces, probe)
            for space in spaces:
                self.open(space, share, size)
        return tuple(reasons)

    def retire(self, source) -> None:
        """Have the reader read what the source still holds and then release it. OSError."""
        self._reader.retire(source)

    def collect(self) -> None:
        """Free the sources that the reader has released."""
        for source in self._reader.sources.collect():
            self._resolver.stop_monitoring(source.index)
            self._untrack(source.inode)
            self.tables.pop(source.inode, None)  # closed by whoever drops the last reference

    def _untrack(self, inode):
        if inode in self._tracked:
            self.tracking.remove(self._tracked.pop(inode))
