"""`Conntrack`, the package's main class. A thread reads events into a ring, from which the caller takes flows.

This file has more than 400 lines: most of them are the documentation of the one class that users see.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t
from sys_epoll cimport EPOLLIN
from nfct_fast.events.flow cimport EVENT_DESTROY, EVENT_FLOW, EVENT_NEW, EVENT_UPDATE
from nfct_fast.reading.engine cimport Engine
from nfct_fast.output.record_writer cimport RecordWriter
from nfct_fast.records.flow_counts cimport FlowCounts
from nfct_fast.processes.redactor cimport Redactor
from nfct_fast.records.presentation cimport Presentation

import time
import warnings
import weakref
from types import GenericAlias
from typing import NamedTuple

from nfct_fast._version import __version__
from nfct_fast.attribution.degradation import without_notes, without_programs
from nfct_fast.attribution.resolver import NOTED_FIRST as _NOTED_FIRST
from nfct_fast.attribution.resolver import NOTED_FLOWS
from nfct_fast.build_info import LIBRARIES as _LIBRARIES
from nfct_fast.events.open_sources import GROUPS
from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.metrics.exposition import Exposition
from nfct_fast.metrics.flow_metrics import add_flow_metrics
from nfct_fast.monitoring.warned import NoEventsWarning, UnknownOwnersWarning
from nfct_fast.reading.batches import Batches
from nfct_fast.records.live_flows import DEFAULT_CAPACITY as _LIVE_FLOWS
from nfct_fast.replay.recording_host import read_identity
from nfct_fast.rights import Rights
from nfct_fast.seen.first_seen import KNOWN as _KNOWN
from nfct_fast.seen.first_seen import FirstSeen

# The kernel charges 1,280 bytes per NEW event, whatever its size, and doubles what is asked for: this holds 105,000.
DEFAULT_RCVBUF = 64 << 20
DEFAULT_RCVBUF_LIMIT = 256 << 20
_LIST_SECONDS = 10.0     # of searching for the holders of sockets while the table is listed: nobody waits behind it
_TYPES = {GROUPS["NEW"]: EVENT_NEW, GROUPS["UPDATE"]: EVENT_UPDATE, GROUPS["DESTROY"]: EVENT_DESTROY}
_ON_LOSS = ("count", "yield", "raise")     # by LOSS_*

cdef enum:
    # Flows handed to an event loop before its other tasks have a turn, at least one: a turn costs 10 us.
    TURN = 256
    LONGEST_MS = 0x7fffffff


class Stats(NamedTuple):
    """Counts since the start. Decoded events that were not filtered were delivered, or are still in the ring."""

    events: int                 # received and decoded
    filtered: int               # events and recovered flows that passed the socket filter and were not wanted
    dropped: int                # events the kernel dropped because a receive buffer was full; exact
    recovered: int              # flows found in the conntrack table, as their event was dropped or unallocated
    lost: int                   # dropped or unallocated and not recovered; a lower bound if `unallocated` is not 0
    overruns: int               # how often the kernel reported a loss
    undecoded: int              # messages that were too long or malformed
    named: int                  # flows for whose owner a process was found
    max_queued: int             # the most records that waited in the ring at once
    rcvbuf: int                 # bytes of the largest receive buffer now, as the kernel counts them
    process_events_lost: int    # forks, execs and exits not reported; such processes are read from /proc if they live
    undelivered: int            # received, but at close() neither taken nor reported as lost; 0 before close()
    spoofed: int                # datagrams that processes, not the kernel, sent to the netlink sockets; ignored
    unallocated: int            # events the kernel had no memory for; a lower bound, as the kernel does not count them
    rcvbuf_all: int             # bytes the kernel may take for all receive buffers together
    namespaces: int             # network namespaces monitored now
    namespaces_added: int       # monitored after the start; like the next three, only with netns="all"
    namespaces_removed: int     # that ended, or were closed because no process was left in them
    unmonitored: int            # that existed and were not monitored for some time at least
    preexisting: int            # flows from the conntrack table that began before their namespace was monitored
    unrecorded: int             # flows that are missing in the recording, as it could not be written (fast enough)
    live_flows: int             # flows that are remembered, as they have not ended; with `flows`, like the next two
    forgotten: int              # of these, dropped to make room: their records will say so
    unended: int                # of these, dropped because their end cannot be heard any more: no record will come
    unstored: int               # flows that are missing in the store, as it could not be written (fast enough)
    first_seen: int             # flows that were marked; with `first_seen`, like the next two
    seen: int                   # addresses and ports of programs that are remembered
    seen_forgotten: int         # of these, dropped to make room: they will be marked again


@cython.final
@cython.auto_pickle(False)
cdef class Conntrack:
    """New network flows with the processes behind them: a context manager and an iterator of `Flow`.

    Args:
        events: any of "NEW", "UPDATE", "DESTROY"; by default "NEW", with `replay` all that was recorded, and none
            besides with `flows`.
        protocol: a regular expression that is searched for in names like "ipv4/tcp"; None for all protocols.
        filter: which flows are wanted, in the filter language of README.md: "dport 443 and not unit sshd.service".
            FilterError, a ValueError, points at what is wrong in it.
        flows: one record of each flow, at its end: its `type` is "FLOW". Its owners are those found when it began, and
            all who used it are in `Owner.processes`. A number is how many live flows are remembered, True for 262,144,
            at 180 bytes each, and 128 MiB for their processes. When there is no room, who has most flows loses the
            oldest: see `Flow.forgotten`, `stats().forgotten`.
        netns: the network namespaces to monitor: None for the calling thread's, a name (ip-netns(8)), a process id, a
            path, or "all" there are, as they come and go. With "all" there are at most 1,024, a fourth of these for one
            user, and each takes seven descriptors.
        attribution: how to look for owners, one of resolver.ATTRIBUTIONS; "off" for not at all.
        rcvbuf: bytes of receive buffer to ask the kernel for at the start. The kernel takes up to twice as much.
            Without CAP_NET_ADMIN in the initial namespace, net.core.rmem_max is the limit.
        rcvbuf_limit: bytes the receive buffer may grow to as it fills; with netns="all", of all buffers together.
        recover: after an overrun, look for the lost flows in the conntrack table.
        track: turn connection tracking on in these namespaces while this object is open (Linux 5.12): for the families
            of `protocol` and `filter`, and if nobody else uses conntrack for these protocols alone. See notices().
        probe: at the start, send an empty datagram over loopback to see whether events arrive; see `no_event_reasons`.
        notes: how many flows the BPF programs remember, at 152 bytes of kernel memory each. By default there is room
            for 65,536 at first, and for more once there are thousands per second, or with UPDATE or DESTROY events.
        community_id: the seed of `Flow.community_id` and `community_id_nat`, by default 0.
        cmdline: whether processes have a command line.
        redact: regular expressions of what must not be seen of command lines, such as DEFAULT_REDACTIONS; None for
            none. What matches, or the group (?P<secret>...) of it, becomes "[redacted]".
        on_loss: what to do where events were lost: "count" in stats() only, "yield" a `Lost` in the flows' place, or
            "raise" `LostEvents` there, once; reading can go on after it.
        record: a file to make, with mode 0600, in which all that is delivered is recorded. What a slow disk does not
            take in time is left out, and counted in stats().unrecorded.
        replay: a recording to read instead of events, or a descriptor of one; it needs no privileges. Of the other
            arguments only `events`, `flows`, `protocol`, `filter`, `community_id`, `cmdline`, `redact`, `on_loss`,
            `metrics` and `drop_privileges` go with it; without `events` and `flows` everything comes that was recorded.
        first_seen: mark the first flow of each program to an address or a port: see `Flow.first_seen`. A number is how
            many of these are remembered, at 16 bytes each, True for 786,432. When there is no room, who has most loses
            those that were not seen for longest, which are then marked again: see `stats().seen_forgotten`. With
            `store` it is remembered there, in the file "seen".
        speed: with replay, 1 for flows as they came, 2 for twice as fast...; None for as fast as they are taken.
        store: a directory in which all that is delivered is kept: see README.md, Keeping a store. A process of its own,
            which is forked, writes there: open this while there is only one thread. What it cannot take in time is left
            out, and counted in stats().unstored. If the process ends, so do the flows, with StoreError.
        store_days, store_size: how long and how many bytes are kept there; by default 30 days and 10 GiB.
        metrics: count flows for metrics(), by event, owner, delay, unit and container.
        drop_privileges: have this object's threads give up all capabilities but those they still need. For the calling
            thread see kernel.privileges.drop().

    A thread of its own reads the events and finds their owners, so that no event is lost while the caller processes
    flows. Iteration blocks until a flow comes, and ends when another thread calls close(). `async for` waits in the
    running event loop instead, asyncio's or any other with add_reader(); a cancellation loses no flow. Only one thread
    or task at a time may take flows. In a forked child everything but close() raises RuntimeError.

    Needs CAP_NET_ADMIN for the events, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to inspect other users' processes, and
    CAP_SYS_ADMIN to enter other namespaces. Raises ValueError for a bad argument, and OSError (PermissionError) with
    what to do about it; RecordingError for a file that cannot be replayed. Reading raises the OSError or RecordingError
    that ended the events, if there was one. Where no event can ever come, or some owners cannot be found, opening gives
    a NoEventsWarning or UnknownOwnersWarning for each reason.
    """
    cdef object __weakref__
    cdef Engine engine
    cdef object kept_flows      # iterator over flows that a read() interrupted by an exception had taken; or None
    cdef int turn               # flows handed to an event loop in this turn
    cdef readonly object host   # a Host: the one whose flows these are
    cdef readonly tuple no_event_reasons    # why events can never arrive and what to do, a sentence each; else empty

    def __cinit__(self):
        self.no_event_reasons = ()
        self.engine = Engine()

    def __init__(self, *, events=None, protocol=None, filter=None, flows=False, netns=None, attribution="auto",
                 int rcvbuf=DEFAULT_RCVBUF, int rcvbuf_limit=DEFAULT_RCVBUF_LIMIT, bint recover=True,
                 bint track=False, bint probe=True, int notes=NOTED_FLOWS, community_id=None, bint cmdline=True,
                 redact=None, on_loss="count", record=None, replay=None, speed=None, store=None, store_days=None,
                 store_size=None, bint metrics=False, drop_privileges=False, first_seen=False,
                 bint _tables=False):
        if self.engine.ring is not None:
            raise RuntimeError("a Conntrack cannot be opened twice")
        if events is None:
            events = () if flows else ("NEW",) if replay is None else ("NEW", "UPDATE", "DESTROY")
            types = [EVENT_FLOW] if flows else [EVENT_FLOW, *_TYPES.values()]
        else:
            types = [_TYPES[group] for group in _groups(events)] + ([EVENT_FLOW] if flows else [])
        asked = _groups(events)
        groups = _heard(asked, flows)
        flow_filter = FlowFilter(protocol, filter, recover and GROUPS["NEW"] in groups, bool(flows))
        if on_loss not in _ON_LOSS:
            raise ValueError(f"on_loss {on_loss!r}: must be one of {', '.join(_ON_LOSS)}")
        if speed is not None and (replay is None or not 0 < speed < float("inf")):
            raise ValueError(f"speed {speed}: must be above 0, and goes with replay only")
        if replay is not None and (netns is not None or track or record is not None):
            raise ValueError("replay reads a file: netns, track and record do not go with it")
        if replay is not None and store is not None or store is None and (store_days, store_size) != (None, None):
            raise ValueError("store keeps what is read from the kernel, which replay is not; days and size go with it")
        if first_seen:
            _known(first_seen)
        if first_seen and replay is not None:
            raise ValueError("replay shows what was marked when it was recorded: first_seen does not go with it")
        if not first_seen and replay is None:
            _refuse_marks(flow_filter)
        if first_seen and attribution == "off":
            raise ValueError("first_seen is about programs, which are not looked for with attribution \"off\"")
        patterns = [redact] if isinstance(redact, str) else [] if redact is None else list(redact)
        redactor = Redactor(patterns, not cmdline) if patterns or not cmdline else None
        presentation = Presentation(community_id, () if replay is None else read_identity(replay))
        self.host = presentation.identity.host
        if rcvbuf < 4096:
            raise ValueError(f"rcvbuf {rcvbuf}: must be at least 4096 bytes")
        rights = _rights(drop_privileges)
        counts = FlowCounts((*[name for name in GROUPS if GROUPS[name] in asked], *(("FLOW",) if flows else ()))
                            ) if metrics else None
        # The threads hold references to parts of the engine, none to this object.
        weakref.finalize(self, self.engine.close)
        # UPDATE and DESTROY events come long after the owner was noted, so notes have to reach back as far as possible.
        # While the program is stopped, no room can be made: a number that was asked for is there from the start.
        first = _NOTED_FIRST if groups == {GROUPS["NEW"]} and notes == NOTED_FLOWS else notes
        try:
            if replay is not None:
                self.engine.open_replay(replay, flow_filter, types, rights, speed or 0, presentation, redactor, counts)
                self.engine.batch.on_loss = _ON_LOSS.index(on_loss)
                return
            link = None if store is None else _link(store, store_days, store_size, rights)
            marker, remark = _marker(first_seen, link)
            self.no_event_reasons = self.engine.open(
                flow_filter, rights, track, dict(mode=attribution, notes=notes, first=first),
                netns, probe, rcvbuf, max(rcvbuf, rcvbuf_limit), groups=groups, recover=recover,
                presentation=presentation, redactor=redactor, counts=counts, tables=_tables,
                flows=(_remembered(flows), GROUPS["NEW"] in asked) if flows else None,
                first_seen=marker,
                # The recording's is one of its own, as it is used by another thread.
                record=None if record is None else (record, presentation, redactor and Redactor(patterns, not cmdline)),
                store=None if link is None else (link, presentation, redactor and Redactor(patterns, not cmdline)))
            self.engine.batch.on_loss = _ON_LOSS.index(on_loss)
            if remark is not None:
                self.engine.notices.add(remark)
            for reason in self.no_event_reasons:
                warnings.warn(reason, NoEventsWarning, stacklevel=1)     # Cython's functions have no level of their own
            for reason in self.degraded:
                warnings.warn(reason, UnknownOwnersWarning, stacklevel=1)
        except BaseException:
            self.engine.close()
            raise

    __class_getitem__ = classmethod(GenericAlias)       # for annotations: Conntrack[Flow | Lost] with on_loss="yield"

    def __enter__(self):
        self.engine.check()
        return self

    def __exit__(self, *exception):
        self.close()

    def _tables(self) -> dict:
        """Return {inode: ConntrackDump} of the monitored namespaces, opened by `_tables`, for one thread at a time."""
        self.engine.check()
        return {} if self.engine.source_opener is None else dict(self.engine.source_opener.tables)

    def _watch(self, int fd, uint32_t events=EPOLLIN) -> None:
        """Have _next_batch() and _write_to() return early when fd is ready for `events` (EPOLL*).

        Raises OSError; EPERM for a regular file, which cannot be waited for.
        """
        self.engine.check()
        self.engine.watch(fd, events)

    def _turns(self) -> int | None:
        """Return a count that grows every second or two while the reading thread works; None if nothing has to.

        None also once the reading has ended: what ended it is raised by, or is the end of, the next wait.
        """
        reader = self.engine.reader
        return None if reader is None or not reader.finished.locked() else reader.turns

    def stop(self) -> None:
        """Stop reading events, within 0.7 seconds, or 6 where processors are short. Any thread may call this.

        Events received until now can still be taken; then iteration ends. Events for which no room is made in time are
        counted in stats().undelivered, after close().
        """
        self.engine.stop()

    def close(self) -> None:
        """Stop reading and free everything. Any thread may call this, any number of times. A blocked iteration ends.

        In a forked child, close the child's descriptors and do nothing else.
        """
        self.engine.close()

    def fileno(self) -> int:
        """Return a descriptor that polls readable when read(0) has flows to return, for an event loop of your own."""
        self.engine.check()
        return self.engine.epoll

    def stats(self) -> Stats:
        """Return the counts since the start; also after close()."""
        self.engine.fork_guard.check("this Conntrack")
        if self.engine.player is not None:
            return self._stats_of_replay()
        intake = self.engine.reader.intake
        sources = self.engine.reader.sources
        counts = sources.counts()
        sizes = [source.socket.rcvbuf for source in sources]
        live = None if intake.flow_ends is None else intake.flow_ends.live
        marker = intake.first_seen
        followed = None if self.engine.follower is None else self.engine.follower.namespaces
        return Stats(
            events=intake.events,
            filtered=intake.filtered,
            dropped=counts.dropped,
            recovered=counts.recovered,
            lost=counts.lost,
            overruns=counts.overruns,
            undecoded=intake.undecoded + counts.truncated,
            named=intake.named,
            max_queued=self.engine.ring.peak,
            rcvbuf=max(sizes, default=0),
            process_events_lost=(<object>self.engine.attribution).programs_lost,
            undelivered=self.engine.undelivered,
            spoofed=counts.spoofed + (<object>self.engine.attribution).spoofed,
            unallocated=counts.unallocated,
            rcvbuf_all=sum(sizes),
            namespaces=len(sources),
            namespaces_added=0 if followed is None else followed.added,
            namespaces_removed=0 if followed is None else followed.removed,
            unmonitored=0 if followed is None else followed.unmonitored,
            preexisting=counts.preexisting,
            unrecorded=0 if self.engine.recorder is None else self.engine.recorder.unrecorded,
            live_flows=0 if live is None else live.count,
            forgotten=0 if live is None else live.forgotten,
            unended=0 if live is None else live.unended,
            unstored=self._unstored(),
            first_seen=0 if marker is None else marker.marked,
            seen=0 if marker is None else marker.known.count,
            seen_forgotten=0 if marker is None else marker.known.forgotten,
        )

    def _unstored(self):
        storer, store = self.engine.storer, self.engine.store
        if storer is None:
            return 0
        if store.failure is not None:     # what it had and did not commit is gone
            return storer.unrecorded + max(0, storer.recorded - store.stored)
        return storer.unrecorded + store.unstored

    @property
    def unconfirmed(self) -> tuple[int, int]:
        """Flows that the store has and had not stored when close() returned, and the id of its process."""
        if self.engine.storer is None or not self.engine.released or self.engine.stored:
            return 0, 0
        waiting = self.engine.storer.recorded - self.engine.store.stored - self.engine.store.unstored
        return max(0, waiting), self.engine.store.pid

    def _stats_of_replay(self):
        player = self.engine.player
        return Stats(**dict.fromkeys(Stats._fields, 0) | dict(
            events=player.chunks.flows, filtered=player.filtered, recovered=player.recovered, lost=player.lost,
            overruns=player.chunks.losses, named=player.named, max_queued=self.engine.ring.peak,
            undelivered=self.engine.undelivered))

    def metrics(self, *, bint openmetrics=False) -> str:
        """Return counts as text for Prometheus, format 0.0.4, or with `openmetrics` as OpenMetrics 1.0.0.

        Flows and bytes are by systemd unit and container, never by address; for 1,000 of these, and the others
        together. Any thread may call this, also after close(). ValueError without the argument `metrics`.
        """
        exposition = Exposition(openmetrics)
        self._add_metrics(exposition)
        return exposition.text()

    def _add_metrics(self, exposition) -> None:
        """Add the metrics to an Exposition."""
        engine = self.engine
        engine.fork_guard.check("this Conntrack")
        if engine.counts is None:
            raise ValueError("no metrics are counted: open it with metrics=True")
        lost, recovered, unallocated = self._reported()
        # As reported so far: what is lost and recovered later would make these counters go back.
        stats = self.stats()._replace(lost=lost, recovered=recovered, unallocated=unallocated)
        add_flow_metrics(
            exposition, {"version": __version__, "libraries": _LIBRARIES}, stats, engine.counts.so_far(),
            (engine.ring.count, engine.ring.capacity),
            None if engine.table_fill is None else engine.table_fill.usage(),
            whole_flows=engine.reader is not None and engine.reader.intake.flow_ends is not None,
            recorded=engine.recorder is not None)

    def notices(self) -> tuple[str, ...]:
        """Return new notices for an operator, a sentence each, each only once.

        With track they say what tracking means for the host, and later that a conntrack table fills up; with
        netns="all" that some namespaces are not monitored. notices_fileno() polls readable when there are any.
        """
        self.engine.fork_guard.check("this Conntrack")
        return self.engine.notices.take()

    def notices_fileno(self) -> int:
        """Return a descriptor for poll() that is readable when notices() has something to return."""
        self.engine.check()
        return self.engine.notices.fileno()

    @property
    def degraded(self) -> tuple[str, ...]:
        """What attribution "auto" cannot use on this host, and which owners it will therefore miss, a sentence each."""
        self.engine.fork_guard.check("this Conntrack")
        attribution = self.engine.attribution
        reasons = []
        if self.engine.player is not None:
            return ()
        if attribution.bpf_missing is not None:
            reasons.append(without_notes(attribution.bpf_missing))
        elif attribution.bpf_lookup is not None and attribution.bpf_lookup.processes_missing is not None:
            reasons.append(without_programs(attribution.bpf_lookup.processes_missing))
        return tuple(reasons)

    @property
    def process_events_lost(self) -> int:
        """As stats().process_events_lost, but cheaper."""
        return 0 if self.engine.player is not None else (<object>self.engine.attribution).programs_lost

    @property
    def forgotten(self) -> int:
        """As stats().forgotten, but cheaper."""
        self.engine.fork_guard.check("this Conntrack")
        flow_ends = None if self.engine.player is not None else self.engine.reader.intake.flow_ends
        return 0 if flow_ends is None else flow_ends.live.forgotten

    @property
    def seen_forgotten(self) -> int:
        """As stats().seen_forgotten, but cheaper."""
        self.engine.fork_guard.check("this Conntrack")
        marker = None if self.engine.player is not None else self.engine.reader.intake.first_seen
        return 0 if marker is None else marker.known.forgotten

    @property
    def lost(self) -> int:
        """Events lost for good, as reported by LOST records so far; cheaper than stats()."""
        return self._reported()[0]

    @property
    def recovered(self) -> int:
        """Flows recovered from the conntrack table, as reported so far; cheaper than stats()."""
        return self._reported()[1]

    @property
    def unallocated(self) -> int:
        """A lower bound of events the kernel had no memory for, as reported so far; cheaper than stats()."""
        return self._reported()[2]

    cdef tuple _reported(self):
        self.engine.fork_guard.check("this Conntrack")
        if self.engine.player is not None:
            return self.engine.player.lost, self.engine.player.recovered, self.engine.player.unallocated
        return self.engine.reader.sources.reported()

    @property
    def unreported(self) -> tuple[int, bool]:
        """After close(), return how many events were neither taken nor reported, and whether that is a lower bound.

        These are the flows that were received and not taken, and the losses whose LOST record was not taken.
        """
        self.engine.fork_guard.check("this Conntrack")
        return self.engine.undelivered + self.engine.unreported_lost, self.engine.at_least

    @staticmethod
    def check(*, netns=None, bint track=False, attribution="auto", int rcvbuf=DEFAULT_RCVBUF) -> CheckReport:
        """Examine what flows and their owners need on this host, and try a real flow from end to end.

        Nothing raises because of the host: what is wrong, and what mends it, is in the report. Without privileges much
        of it is unknown. Takes 0.5 to 3 seconds, and starts a Python process, which sends two empty datagrams over
        loopback. The thread enters the network namespace for moments. Nothing is left behind but conntrack entries of
        these datagrams, for up to 30 seconds, and kernel modules that asking the kernel loads.

        Args:
            netns: The network namespace to examine: None for the calling thread's, a name, a process id, or a path.
            track: Whether to turn connection tracking on there meanwhile.
            attribution: As of Conntrack.
            rcvbuf: The receive buffer that is tried, bytes.

        Raises:
            ValueError: An argument is wrong.
            OSError: The namespace does not exist, or cannot be entered.
        """
        from nfct_fast.checking.examination import examine      # only those who use it wait for that
        return examine(Conntrack, netns=netns, track=track, attribution=attribution, rcvbuf=rcvbuf)

    cdef int _next(self, int timeout) except -2:
        """Fill the batch, waiting up to `timeout` ms, -1 without limit.

        Return its size, 0 if it is empty, -1 if no more will come.
        """
        cdef int count
        self.engine.check()
        count = self.engine.take(timeout)
        if count == 0:
            # An iteration runs no Python code between two waits, so a ^C would wait for the next flow. Raised here,
            # before anything is taken, it loses nothing.
            PyErr_CheckSignals()
            count = self.engine.take(0)
        return self._ended(count)

    cdef int _ended(self, int count) except -2:
        if count == -1 and (failure := self.engine.failure()) is not None:
            raise failure
        return count

    def _next_batch(self, timeout: float | None = None) -> TakenRecords | None:
        """Wait up to `timeout` seconds, None without limit; return flows, valid until the next call.

        It is empty after the timeout, when a watched descriptor is ready or a signal came. None if no more will come.
        """
        if self._next(-1 if timeout is None else max(0, <int>(timeout * 1000))) < 0:
            return None
        return self.engine.batch

    def _write_to(self, RecordWriter writer not None) -> int | None:
        """Wait for flows, write them and those that come within the next 0.1 s, and return how many.

        0 if a watched descriptor is ready or a signal came: call it again for the rest. None if no more will come.
        Blocks and raises OSError as the writer does.
        """
        self.engine.check()
        count = self._ended(self.engine.take(-1, writer))
        return None if count < 0 else count

    cdef object _at_hand(self, bint may_raise):
        """Return the next flow that was taken from the ring already, or None; see TakenRecords.next_one()."""
        if self.kept_flows is not None:
            for flow in self.kept_flows:
                return flow
            self.kept_flows = None
        return self.engine.batch.next_one(may_raise)

    def read(self, *, limit: int | None = None, timeout: float | None = None) -> list:
        """Wait for a flow and return all that are there by then; [] if none came in time, or none will ever come.

        Args:
            limit: The most flows to return, 1 or more; None for no limit. The others are left for the next call.
            timeout: The most seconds to wait; None for no limit.

        If a signal handler raises meanwhile, as for ^C, the next read() or iteration returns the flows already taken.
        """
        cdef double until
        if limit is not None and limit < 1:
            raise ValueError(f"limit {limit}: must be at least 1")
        self.engine.check()
        until = 0 if timeout is None else time.monotonic() + timeout
        flows = []
        try:
            while True:
                while limit is None or len(flows) < limit:
                    flow = self._at_hand(not flows)
                    if flow is None:
                        break
                    flows.append(flow)
                else:
                    return flows
                if flows and len(self.engine.batch):        # LostEvents is due, which is for the next call
                    return flows
                left = -1 if timeout is None else max(0., until - time.monotonic())
                count = self._next(0 if flows else -1 if left < 0 else <int>min(<double>LONGEST_MS, left * 1000))
                if count < 0 or count == 0 and (flows or timeout is not None and left <= 0):
                    return flows
        except BaseException:
            self.kept_flows = iter(flows + list(self.kept_flows or ()))
            raise

    def batches(self, max_rows=65536, max_wait=1.0) -> Batches:
        """Return an iterator, for `for` and `async for`, of flows as columns: each `Batch` is of at most `max_rows`.

        Args:
            max_rows: how many rows make a batch, up to 16,777,216.
            max_wait: seconds after its first row when a batch comes with fewer.

        It ends when this object is stopped or closed; a wait that is interrupted or cancelled loses nothing. Events
        that were lost are counted in `Batch.lost`, so that a batch may have no rows. Raises as iteration does,
        ValueError for a bad argument, and MemoryError.
        """
        self.engine.check()
        return Batches(self, self.engine, max_rows, max_wait)

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            flow = self._at_hand(True)
            if flow is not None:
                return flow
            PyErr_CheckSignals()        # here too, in case flows never stop coming
            if self.engine.closed or self._next(-1) < 0:
                raise StopIteration

    def __aiter__(self):
        self.engine.check()
        return self

    async def __anext__(self):
        cdef int count
        while True:
            if self.turn >= TURN:
                # Imported here: asyncio takes longer than all else, and only those who use it should wait for that.
                from nfct_fast.reading.event_loop import give_way
                await give_way()
                self.turn = 0
            # Nothing is awaited between taking a flow and handing it on: a cancellation comes before or after.
            flow = self._at_hand(True)
            if flow is not None:
                self.turn += 1
                return flow
            count = -1 if self.engine.closed else self._next(0)
            if count < 0:
                raise StopAsyncIteration
            if count == 0:
                from nfct_fast.reading.event_loop import wait
                await wait(self.engine)
                self.turn = 0


def list_flows(*, protocol=None, filter=None, netns=None, attribution="auto", community_id=None, bint cmdline=True,
               redact=None, drop_privileges=False) -> Conntrack:
    """Return a Conntrack of what the conntrack table contains now, as `Flow` of type "ENTRY"; it ends after the last.

    Owners are those of the sockets that are open now. An unconnected socket does not prove who began a flow of its
    port, which may have been another socket's port then: such a flow has the reason "ambiguous".

    Args:
        protocol, filter, netns, community_id, cmdline, redact, drop_privileges: As of Conntrack.
        attribution: As of Conntrack, but not "bpf", which notes only what happens from then on.

    Raises:
        ValueError: An argument is invalid.
        OSError: The table cannot be read; PermissionError without CAP_NET_ADMIN.
    """
    cdef Conntrack table = Conntrack.__new__(Conntrack)
    if attribution == "bpf":
        raise ValueError("the table is listed without BPF, which notes only what happens: choose auto, diag or proc")
    flow_filter = FlowFilter(protocol, filter)
    _refuse_marks(flow_filter)
    presentation = Presentation(community_id)
    table.host = presentation.identity.host
    rights = _rights(drop_privileges)
    weakref.finalize(table, table.engine.close)
    try:
        table.engine.open(
            flow_filter, rights, False, dict(mode=attribution, bpf=False, burst=_LIST_SECONDS), netns, False, 1 << 16,
            DEFAULT_RCVBUF_LIMIT, presentation, _redactor(cmdline, redact), listing=True, groups=(), recover=True)
    except BaseException:
        table.engine.close()
        raise
    return table


def _rights(drop_privileges):
    # The command line passes a Rights, which says what threads give up and what helper processes do instead.
    return drop_privileges if isinstance(drop_privileges, Rights) else Rights() if drop_privileges else None


def _link(store, days, size, rights):
    # Imported here: SQLite takes memory and time, and only those who use it should have that.
    from nfct_fast.store.store_error import StoreError
    try:
        from nfct_fast.store.store_link import StoreLink
    except ImportError as error:
        raise StoreError(f"there is no store without the module sqlite3 of Python: {error}") from None
    if days is not None and not 1 <= days <= 1000000:
        raise ValueError(f"store_days {days}: must be from 1 to 1000000")
    if size is not None and size < 1 << 24:
        raise ValueError(f"store_size {size}: must be at least {1 << 24} bytes")
    return StoreLink(store, days, size, Rights(filter_calls=True) if rights is None else rights)


def _redactor(bint cmdline, redact):
    patterns = [redact] if isinstance(redact, str) else [] if redact is None else list(redact)
    return Redactor(patterns, not cmdline) if patterns or not cmdline else None


def _groups(events):
    names = [events] if isinstance(events, str) else list(events)
    try:
        groups = {GROUPS[name.upper()] for name in names}
    except (KeyError, AttributeError):
        raise ValueError(f"events {events!r}: must be any of {', '.join(GROUPS)}") from None
    return groups


def _heard(asked, flows):
    """The groups that have to be listened to."""
    if not flows:
        if not asked:
            raise ValueError("events is empty: name at least one of NEW, UPDATE, DESTROY")
        return asked
    if GROUPS["DESTROY"] in asked:
        raise ValueError("with flows there is a FLOW record in place of each DESTROY: leave DESTROY out of events")
    return asked | {GROUPS["NEW"], GROUPS["DESTROY"]}


def _refuse_marks(flow_filter):
    if flow_filter.uses("first_seen"):
        raise ValueError("filter: first_seen needs the argument first_seen (--first-seen), which marks such flows")


def _marker(first_seen, link):
    """A FirstSeen and what an operator should know of it; None for neither. link: the StoreLink, or None."""
    if not first_seen:
        return None, None
    if link is not None:
        from nfct_fast.seen.seen_file import read_seen
        return read_seen(link.path, _known(first_seen))
    return FirstSeen(_known(first_seen)), (
        "without a store nothing is remembered of what programs talked to once this ends, and at first every address "
        "and port is first seen")


def _known(first_seen):
    if first_seen is not True and not 1024 <= first_seen <= 1 << 26:
        raise ValueError(f"first_seen {first_seen}: must be False, True, or from 1024 to {1 << 26}")
    return _KNOWN if first_seen is True else first_seen


def _remembered(flows):
    if flows is True:
        return _LIVE_FLOWS
    if not 1 <= flows <= 1 << 26:
        raise ValueError(f"flows {flows}: must be False, True, or from 1 to {1 << 26}")
    return flows
