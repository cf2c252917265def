"""`Conntrack`: the rooms joined. A thread reads into a ring; whoever holds the object takes from it."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t
from sys_epoll cimport EPOLLIN
from nfct_fast.reading.engine cimport Engine
from nfct_fast.output.writer cimport Writer

import weakref
from typing import NamedTuple

from nfct_fast.attribution.resolver import NOTED_FIRST, NOTED_FLOWS
from nfct_fast.events.filter import socket_filter, wanted_protocols
from nfct_fast.events.open_sources import GROUPS
from nfct_fast.rights import Rights

# A NEW event is charged 1,280 bytes whatever its size: this, doubled by the kernel, holds 105,000.
DEFAULT_RCVBUF = 64 << 20
DEFAULT_RCVBUF_LIMIT = 256 << 20


class Stats(NamedTuple):
    """Counts since the start. Events that came and were not filtered were delivered, or still wait in the ring."""

    events: int         # received and decoded
    filtered: int       # not wanted, and refused only after decoding
    dropped: int        # by the kernel, because a receive buffer was full: exact
    recovered: int      # flows of those and of unmade ones, delivered from the conntrack table instead
    lost: int           # dropped or unmade, and not recovered: exact where unmade is 0, else at least
    overruns: int       # times the kernel said that events were lost
    undecoded: int      # messages too long or not understood
    named: int          # flows whose owner has a process
    max_queued: int         # the most records that waited at once to be taken
    rcvbuf: int         # bytes the kernel now grants the largest receive buffer
    process_events_lost: int  # forks, executions and exits the kernel had no room to tell of: asked of /proc, as long as they live
    undelivered: int        # received, and at the end neither taken nor told of; 0 before close()
    foreign: int        # datagrams on netlink sockets that the kernel did not send: not looked at
    unallocated: int         # events the kernel had no memory to make: at least so many, it does not count them
    rcvbuf_all: int     # bytes that the kernel may take for all receive buffers together
    namespaces: int     # that are heard now
    namespaces_added: int           # and came after the start, with netns="all", as the next three
    namespaces_removed: int           # that ended, or were closed because they had no process
    unmonitored: int        # that were there, and not heard at least for a while
    preexisting: int          # flows told from the conntrack table of a namespace that began before it was found


@cython.final
@cython.auto_pickle(False)
cdef class Conntrack:
    """New network flows with the processes behind them: a context manager and an iterator of `Flow`.

    events: any of "NEW", "UPDATE", "DESTROY". protocol: a regular expression searched in names like "ipv4/tcp";
    None for all. netns: the network namespaces to hear: None for the one of the calling thread, a name (ip-netns(8)),
    a process id, a path, or "all" there are, as they come and go: 1,024 at most, a fourth of these of one user, seven
    descriptors each. attribution: how owners are looked for, see ATTRIBUTIONS; "off" for not at all. rcvbuf: bytes asked for
    the kernel's receive buffer at the start; rcvbuf_limit: what it may grow to when it fills, and with "all" what all buffers
    may together. The kernel takes up to twice as much. Capped by net.core.rmem_max without CAP_NET_ADMIN in the initial
    namespace. recover: after an overrun look for the lost
    flows in the conntrack table. track: turn connection tracking on in these namespaces as long as this object is
    open (Linux 5.12), for the families of `protocol`, and where nobody else uses it for these protocols alone; see news().
    probe: try at the start whether events arrive, by an empty datagram over loopback; `silence`
    has the answer. flows: how many flows the kernel's notes reach back, 152 bytes of kernel memory each; with NEW alone
    most of it is taken only once there are thousands in a second. drop_privileges: the threads
    of this object give up all capabilities but those they go on to need; for the caller's own see privileges.drop().

    A thread of its own reads the events and finds their owners, so that none is lost while the flows are dealt with.
    Iterating blocks until a flow comes, and ends when another thread calls close(). One thread at a time may take
    flows. In a process that has it by fork all but close() raises RuntimeError.

    Needs CAP_NET_ADMIN for the events, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to look into other users' processes,
    CAP_SYS_ADMIN to enter other namespaces. Raises ValueError for a bad argument, PermissionError and OSError with
    what to do about it; reading raises the OSError that ended the events, if one did.
    """
    cdef object __weakref__
    cdef Engine engine
    cdef object kept_flows                # iterator over flows that a read() had taken when a signal cut it short
    cdef readonly tuple no_event_reasons     # sentences that tell why events can never arrive here, and what to do; else empty

    def __cinit__(self):
        self.kept_flows = iter(())
        self.no_event_reasons = ()
        self.engine = Engine()

    def __init__(self, *, events=("NEW",), protocol=None, netns=None, attribution="auto", int rcvbuf=DEFAULT_RCVBUF,
                 int rcvbuf_limit=DEFAULT_RCVBUF_LIMIT, bint recover=True, bint track=False, bint probe=True,
                 int flows=NOTED_FLOWS, drop_privileges=False):
        if self.engine.ring is not None:
            raise RuntimeError("a Conntrack is opened once")
        groups = _groups(events)
        wanted = wanted_protocols(protocol)
        if rcvbuf < 4096:
            raise ValueError(f"rcvbuf {rcvbuf}: a receive buffer of at least 4096 bytes is needed")
        # The command line gives a Rights: what they give up, and what is done by processes of their own instead.
        rights = drop_privileges if isinstance(drop_privileges, Rights) else Rights() if drop_privileges else None
        # Its threads hold the engine's parts, none of them this object.
        weakref.finalize(self, self.engine.close)
        # How a flow goes on or ends is told long after its owner was noted: then notes have to reach back as far as they can.
        first = NOTED_FIRST if groups == {GROUPS["NEW"]} else flows
        try:
            self.no_event_reasons = self.engine.open(
                wanted, rights, track, dict(mode=attribution, flows=flows, first=first),
                netns, probe, rcvbuf, max(rcvbuf, rcvbuf_limit), groups=groups, program=socket_filter(wanted), recover=recover)
        except BaseException:
            self.engine.close()
            raise

    def __enter__(self):
        self.engine.check()
        return self

    def __exit__(self, *exception):
        self.close()

    def watch(self, int fd, uint32_t events=EPOLLIN) -> None:
        """Have next_batch() return, empty, also when fd is ready for events (EPOLL*); OSError(EPERM) for a plain file."""
        self.engine.check()
        self.engine.watch(fd, events)

    def stop(self) -> None:
        """Have reading end within half a second. What has come until now can still be taken; then iteration ends. From any
        thread. What is then still queued, as nobody made room for it, is counted: stats().untaken, after close()."""
        self.engine.stop()

    def close(self) -> None:
        """End the events and free everything; from any thread, more than once. A blocked reader's iteration ends.

        In a process that has this object by fork it closes the descriptors there, and nothing else.
        """
        self.engine.close()

    def fileno(self) -> int:
        """A descriptor that polls readable when read(0) has something to return; for an event loop of your own."""
        self.engine.check()
        return self.engine.epoll

    def stats(self) -> Stats:
        """Counts since the start; also after close()."""
        self.engine.fork_guard.check("this Conntrack")
        intake = self.engine.reader.intake
        sources = self.engine.reader.sources
        counts = sources.counts()
        sizes = [source.socket.rcvbuf for source in sources]
        places = None if self.engine.follower is None else self.engine.follower.places
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
            foreign=counts.foreign + (<object>self.engine.attribution).foreign,
            unallocated=counts.unallocated,
            rcvbuf_all=sum(sizes),
            namespaces=len(sources),
            namespaces_added=0 if places is None else places.came,
            namespaces_removed=0 if places is None else places.went,
            unmonitored=0 if places is None else places.unheard,
            preexisting=counts.preexisting,
        )

    def notices(self) -> tuple[str, ...]:
        """Sentences for an operator, each once: with track what it means for the host, and later that a conntrack table fills;
        with netns="all" that some namespaces are not heard. news_fileno() polls readable when there are some."""
        self.engine.fork_guard.check("this Conntrack")
        return self.engine.notices.take()

    def notices_fileno(self) -> int:
        """A descriptor for poll() or watch(): see news()."""
        self.engine.check()
        return self.engine.notices.fileno()

    @property
    def degraded(self) -> tuple[str, ...]:
        """What attribution "auto" would use and this host does not have, each with what it will therefore miss."""
        self.engine.fork_guard.check("this Conntrack")
        attribution = self.engine.attribution
        reasons = []
        if attribution.missing is not None:
            reasons.append(f"sockets closed at once will have no owner: {attribution.missing}")
        elif attribution.notes is not None and attribution.notes.processes_missing is not None:
            reasons.append("programs that end at once will have no command line, and none its ancestors: "
                           + attribution.notes.processes_missing)
        return tuple(reasons)

    @property
    def process_events_lost(self) -> int:
        """As in stats(); cheaper."""
        return (<object>self.engine.attribution).programs_lost

    @property
    def lost(self) -> int:
        """Events lost for good so far, as told by LOST records; cheaper than stats()."""
        return self._reported()[0]

    @property
    def recovered(self) -> int:
        """Flows delivered from the conntrack table because their events were lost; cheaper than stats()."""
        return self._reported()[1]

    @property
    def unallocated(self) -> int:
        """Events lost in no count of the kernel's, at least so many, as told by LOST records; cheaper than stats()."""
        return self._reported()[2]

    cdef tuple _reported(self):
        self.engine.fork_guard.check("this Conntrack")
        return self.engine.reader.sources.reported()

    @property
    def unreported(self) -> tuple[int, bool]:
        """After close(): events missing from what was taken that no LOST record told of, flows that were received and not
        taken, and losses whose record was not; and whether they may be more."""
        self.engine.fork_guard.check("this Conntrack")
        return self.engine.undelivered + self.engine.unreported_lost, self.engine.at_least

    cdef int _next(self, int timeout) except -2:
        """Fill the batch, waiting up to timeout ms (-1: for ever): its number of records, 0 for none now, -1 for none ever."""
        cdef int count
        self.engine.check()
        count = self.engine.take(timeout)
        if count == 0:
            # No Python code runs between two waits of an iteration: a ^C would wait for the next flow. Raised before
            # anything is taken, it loses none.
            PyErr_CheckSignals()
            count = self.engine.take(0)
        return self._ended(count)

    cdef int _ended(self, int count) except -2:
        if count == -1 and self.engine.reader.failure is not None:
            raise self.engine.reader.failure
        return count

    def next_batch(self, timeout: float | None = None) -> Batch | None:
        """Wait up to timeout seconds (None: for ever) for flows; return them as a Batch, valid until the next call.

        It is empty when time is out, a watched descriptor is ready or a signal came; None when no more will come.
        """
        if self._next(-1 if timeout is None else max(0, <int>(timeout * 1000))) < 0:
            return None
        return self.engine.batch

    def write_to(self, Writer writer not None) -> int | None:
        """Wait for flows and write them, and those that come within the next 0.1 s; return how many.

        It is 0 when a watched descriptor is ready or a signal came before the first, or amid them: then call it again for
        the rest. None when no more will come. Blocks and raises OSError as the writer's Sink does.
        """
        self.engine.check()
        count = self._ended(self.engine.take(-1, writer))
        return None if count < 0 else count

    def read(self, timeout: float | None = None) -> list:
        """Wait up to timeout seconds (None: for ever) and return all flows at hand; [] when none came or will come.

        What it had taken when a signal's handler raised, as ^C does, the next read() or iteration has.
        """
        self.engine.check()
        flows = [*self.kept_flows, *self.engine.batch]
        try:
            while (batch := self.next_batch(0 if flows else timeout)) is not None and len(batch):
                flows += batch
        except BaseException:
            self.kept_flows = iter(flows)
            raise
        return flows

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            for flow in self.engine.batch:      # which may have had nothing but a LOST record left
                return flow
            for flow in self.kept_flows:
                return flow
            PyErr_CheckSignals()        # also where flows come without end
            if self.engine.closed or self._next(-1) < 0:
                raise StopIteration


def _groups(events):
    names = [events] if isinstance(events, str) else list(events)
    try:
        groups = {GROUPS[name.upper()] for name in names}
    except (KeyError, AttributeError):
        raise ValueError(f"events {events!r}: there are {', '.join(GROUPS)}") from None
    if not groups:
        raise ValueError("events is empty: nothing would ever come")
    return groups
