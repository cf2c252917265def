"""`Conntrack`: the rooms joined. A thread reads into a ring; whoever holds the object takes from it."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from sys_epoll cimport EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_write
from .batch cimport Batch
from .procfs cimport procfs_monotonic_ns
from .reader cimport Reader
from .ring cimport Ring
from .source cimport Source
from .writer cimport Writer, writer_error

import os
import threading
import weakref
from typing import NamedTuple

from . import privileges
from .attribution import NOTED_FLOWS, Attribution
from .filter import socket_filter, wanted_protocols
from .listen import GROUPS, open_sources

# A NEW event is charged 1,280 bytes whatever its size: this, doubled by the kernel, holds 105,000.
DEFAULT_RCVBUF = 64 << 20
DEFAULT_RCVBUF_LIMIT = 256 << 20
_RING = 32768

cdef enum:
    READY = 8
    TURN_MS = 100        # what passes to a Writer before Python is asked again: that costs 80 us where the caches are cold


class Stats(NamedTuple):
    """Counts since the start. Events that came and were not filtered were delivered, or still wait in the ring."""

    events: int         # received and decoded
    filtered: int       # not wanted, and refused only after decoding
    dropped: int        # by the kernel, because a receive buffer was full: exact
    recovered: int      # flows of those, delivered from the conntrack table instead
    lost: int           # dropped and not recovered
    overruns: int       # times a receive buffer was found to have been full
    undecoded: int      # messages too long or not understood
    named: int          # flows whose owner has a process
    queued: int         # the most records that waited at once to be taken
    rcvbuf: int         # bytes the kernel now grants the largest receive buffer


cdef object _error(str what):
    cdef int number = errno
    return OSError(number, f"{what}: {os.strerror(number)}")


@cython.final
@cython.auto_pickle(False)
cdef class Conntrack:
    """New network flows with the processes behind them: a context manager and an iterator of `Flow`.

    events: any of "NEW", "UPDATE", "DESTROY". protocol: a regular expression searched in names like "ipv4/tcp";
    None for all. netns: the network namespaces to hear: None for the one of the calling thread, a name (ip-netns(8)),
    a process id, a path, or "all" there are now, 1,024 at most; six descriptors each. attribution: how owners are
    looked for, see ATTRIBUTIONS; "off" for not at all. rcvbuf: bytes of the kernel's receive buffer at the start,
    rcvbuf_limit: what it may grow to when it fills; capped
    by net.core.rmem_max without CAP_NET_ADMIN in the initial namespace. recover: after an overrun look for the lost
    flows in the conntrack table. track: turn connection tracking on in these namespaces as long as this object is
    open (Linux 5.12). probe: try at the start whether events arrive, by an empty datagram over loopback; `silence`
    has the answer. flows: how many flows the kernel's notes reach back, 152 bytes of kernel memory each. drop_privileges: the threads
    of this object give up all capabilities but those they go on to need; for the caller's own see privileges.drop().

    A thread of its own reads the events and finds their owners, so that none is lost while the flows are dealt with.
    Iterating blocks until a flow comes, and ends when another thread calls close(). One thread at a time may take
    flows. It does not survive a fork.

    Needs CAP_NET_ADMIN for the events, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to look into other users' processes,
    CAP_SYS_ADMIN to enter other namespaces. Raises ValueError for a bad argument, PermissionError and OSError with
    what to do about it; reading raises the OSError that ended the events, if one did.
    """
    cdef object __weakref__
    cdef Reader reader
    cdef Ring ring
    cdef Batch batch
    cdef object thread
    cdef object lock
    cdef list tables
    cdef object kept                # iterator over flows that a read() had taken when a signal cut it short
    cdef int epoll
    cdef int wake
    cdef int pid
    cdef bint closed
    cdef bint ended                 # and its thread is gone
    cdef bint taking
    cdef readonly tuple silence     # sentences that tell why events can never arrive here, and what to do; else empty

    def __cinit__(self):
        self.epoll = self.wake = -1
        self.closed = True
        self.lock = threading.Lock()
        self.tables = []
        self.kept = iter(())
        self.pid = os.getpid()

    def __init__(self, *, events=("NEW",), protocol=None, netns=None, attribution="auto", int rcvbuf=DEFAULT_RCVBUF,
                 int rcvbuf_limit=DEFAULT_RCVBUF_LIMIT, bint recover=True, bint track=False, bint probe=True,
                 int flows=NOTED_FLOWS, bint drop_privileges=False):
        if self.reader is not None:
            raise RuntimeError("a Conntrack is opened once")
        groups = _groups(events)
        wanted = wanted_protocols(protocol)
        if rcvbuf < 4096:
            raise ValueError(f"rcvbuf {rcvbuf}: a receive buffer of at least 4096 bytes is needed")
        settled = privileges.drop if drop_privileges else None
        self.ring = Ring(_RING)
        self.batch = Batch(self.ring)
        self.reader = Reader(self.ring, Attribution(attribution, flows=flows, settled=settled), wanted, rcvbuf_limit)
        self.closed = False
        try:
            self.silence = open_sources(self.reader, self.tables, netns, groups, socket_filter(wanted), rcvbuf,
                                        track, probe, recover)
            self.epoll = epoll_create1(EPOLL_CLOEXEC)
            if self.epoll < 0:
                raise _error("epoll")
            self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            if self.wake < 0:
                raise _error("eventfd")
            self.watch(self.ring.filled)
            self.watch(self.wake)
            # It holds the reader, not this object: a Conntrack that nobody holds any more ends its thread.
            self.thread = threading.Thread(target=self.reader.run, args=(settled,), name="nfct_fast reader",
                                           daemon=True)
            weakref.finalize(self, Reader.stop, self.reader)
            self.thread.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    cdef int _check(self) except -1:
        if self.closed:
            raise ValueError("operation on closed Conntrack")
        return 0

    def watch(self, int fd, uint32_t events=EPOLLIN) -> None:
        """Have next_batch() return, empty, also when fd is ready for events (EPOLL*); OSError(EPERM) for a plain file."""
        cdef epoll_event event
        self._check()
        memset(&event, 0, sizeof(event))
        event.events = events
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise _error("epoll")

    def stop(self) -> None:
        """Have reading end. What has come until now can still be taken; then iteration ends. From any thread."""
        if self.thread is not None and self.pid == os.getpid():
            self.reader.stop()

    def close(self) -> None:
        """End the events and free everything; from any thread, more than once. A blocked reader's iteration ends."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
        self.stop()
        if self.thread is not None and self.pid == os.getpid():
            self.thread.join()
        if self.wake >= 0 and self.pid == os.getpid():
            eventfd_write(self.wake, 1)
        with self.lock:
            self.ended = True
            if not self.taking:
                self._release()

    def _release(self):
        self.batch.clear()
        self.reader.close()
        self.reader.attribution.close()
        for table in self.tables:
            table.close()
        for fd in (self.epoll, self.wake):
            if fd >= 0:
                os.close(fd)
        self.epoll = self.wake = -1

    def fileno(self) -> int:
        """A descriptor that polls readable when read(0) has something to return; for an event loop of your own."""
        self._check()
        return self.epoll

    def stats(self) -> Stats:
        """Counts since the start; also after close()."""
        cdef Source source
        reader = self.reader
        sources = [source for source in reader.sources if source is not None]
        for source in sources:
            if source.socket.fd >= 0:
                source.socket.count_lost()
        return Stats(
            events=reader.events,
            filtered=reader.filtered,
            dropped=sum([source.socket.lost for source in sources]),
            recovered=sum([source.recoveries for source in sources]),
            lost=sum([source.lost for source in sources]),
            overruns=sum([source.socket.overruns for source in sources]),
            undecoded=reader.undecoded,
            named=reader.named,
            queued=self.ring.most,
            rcvbuf=max([source.socket.rcvbuf for source in sources], default=0),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What attribution "auto" would use and this host does not have, each with what it will therefore miss."""
        attribution = self.reader.attribution
        reasons = []
        if attribution.missing is not None:
            reasons.append(f"sockets closed at once will have no owner: {attribution.missing}")
        elif attribution.notes is not None and attribution.notes.events_missing is not None:
            reasons.append("processes that end at once will have no command line: " + attribution.notes.events_missing)
        return tuple(reasons)

    @property
    def lost(self) -> int:
        """Events lost for good so far, as told by LOST records; cheaper than stats()."""
        cdef Source source
        cdef uint64_t result = 0
        for source in self.reader.sources:
            if source is not None:
                result += source.told
        return result

    @property
    def recovered(self) -> int:
        """Flows delivered from the conntrack table because their events were lost; cheaper than stats()."""
        cdef Source source
        cdef uint64_t result = 0
        for source in self.reader.sources:
            if source is not None:
                result += source.told_recovered
        return result

    cdef int _fill(self, int timeout) noexcept nogil:
        """Take the records there are: their number, -1 for none ever. If there are none, 0 after up to timeout ms."""
        cdef epoll_event ready[READY]
        cdef int count = self.batch.fill()
        if count != 0 or timeout == 0 or self.closed:
            return count
        if epoll_wait(self.epoll, ready, READY, timeout) < 0 and errno != EINTR:
            return -2
        return 0

    cdef int _pass(self, Writer writer, int *result) noexcept nogil:
        """Write what there is and what comes within TURN_MS, as _fill(-1) if nothing is there: how many records were
        written, or as _fill. *result: 0 or what writing failed with."""
        cdef int64_t until = procfs_monotonic_ns() + TURN_MS * <int64_t>1000000
        cdef int64_t left = -1
        cdef int written = 0
        cdef int count = self._fill(-1) or self.batch.fill()
        while count > 0:
            result[0] = writer.put(self.batch)
            written += count
            left = (until - procfs_monotonic_ns()) // 1000000
            if result[0] < 0 or left <= 0:
                break
            count = self._fill(<int>left) or self.batch.fill()
        return written or count

    cdef int _turn(self, int timeout, Writer writer=None) except -2:
        """_fill, or if there is a writer _pass, as the one taker; -1 also once it is closed."""
        cdef int result = 0
        cdef int count
        cdef int number
        with self.lock:
            if self.closed:
                return -1
            if self.taking:
                raise RuntimeError("another thread is taking flows from this Conntrack")
            self.taking = True
        try:
            with nogil:
                count = self._fill(timeout) if writer is None else self._pass(writer, &result)
                number = errno
        finally:
            with self.lock:
                self.taking = False
                if self.closed:
                    count = -1
                # Until then the reading thread works with what would be freed.
                if self.ended:
                    self._release()
        if result < 0:
            raise writer_error(result)
        if count == -2:
            raise OSError(number, f"waiting for flows: {os.strerror(number)}")
        return count

    cdef int _next(self, int timeout) except -2:
        """Fill the batch, waiting up to timeout ms (-1: for ever): its number of records, 0 for none now, -1 for none ever."""
        cdef int count
        self._check()
        count = self._turn(timeout)
        if count == 0:
            # No Python code runs between two waits of an iteration: a ^C would wait for the next flow. Raised before
            # anything is taken, it loses none.
            PyErr_CheckSignals()
            count = self._turn(0)
        return self._ended(count)

    cdef int _ended(self, int count) except -2:
        if count == -1 and self.reader.failure is not None:
            raise self.reader.failure
        return count

    def next_batch(self, timeout: float | None = None) -> Batch | None:
        """Wait up to timeout seconds (None: for ever) for flows; return them as a Batch, valid until the next call.

        It is empty when time is out, a watched descriptor is ready or a signal came; None when no more will come.
        """
        if self._next(-1 if timeout is None else max(0, <int>(timeout * 1000))) < 0:
            return None
        return self.batch

    def write_to(self, Writer writer not None) -> int | None:
        """Wait for flows and write them, and those that come within the next 0.1 s; return how many.

        It is 0 when a watched descriptor is ready or a signal came before the first; None when no more will come.
        Blocks and raises OSError as the writer's Sink does.
        """
        self._check()
        count = self._ended(self._turn(-1, writer))
        return None if count < 0 else count

    def read(self, timeout: float | None = None) -> list:
        """Wait up to timeout seconds (None: for ever) and return all flows at hand; [] when none came or will come.

        What it had taken when a signal's handler raised, as ^C does, the next read() or iteration has.
        """
        flows = [*self.kept, *self.batch]
        try:
            while (batch := self.next_batch(0 if flows else timeout)) is not None and len(batch):
                flows += batch
        except BaseException:
            self.kept = iter(flows)
            raise
        return flows

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            for flow in self.batch:     # which may have had nothing but a LOST record left
                return flow
            for flow in self.kept:
                return flow
            PyErr_CheckSignals()        # also where flows come without end
            if self.closed or self._next(-1) < 0:
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
