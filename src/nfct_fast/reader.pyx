"""The thread that reads: receive, decode, filter, attribute, and into the ring, many events without the GIL.

It never waits for whoever takes the records, until the ring is full; then the kernel's receive buffers hold what comes,
and what they cannot hold is counted.
"""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close
from sys_epoll cimport (EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, epoll_create1, epoll_ctl, epoll_event,
                        epoll_wait)
from sys_socket cimport (AF_INET, AF_INET6, EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, eventfd_write, poll, pollfd)
from .flow cimport EVENT_LOST, EVENT_NEW, FLOW_RECOVERED
from .pace cimport pace_keep
from .record cimport record_t
from .source cimport SIFT_SEED, SIFT_SWEEP, Source

import os

cdef enum:
    READY = 16
    HOUSEKEEPING_MS = 1000
    END_MS = 300                 # what reading the rest may take in the end
    ROUNDS = 4                   # receives from one source before others have their turn
    SLICE_NS = 2000000           # of reading tables, before it is looked for events again
    WAKE = SOURCES               # epoll's number for our own eventfd


cdef int64_t _now(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef object _error(str what):
    cdef int number = errno
    return OSError(number, f"{what}: {os.strerror(number)}")


@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    """Reads the sources added to it into a ring, in run(), until stop(). wanted: pairs of family and protocol."""

    def __cinit__(self, Ring ring not None, Attribution attribution not None, wanted, int rcvbuf_limit):
        self.epoll = self.wake = -1
        self.ring = ring
        self.attribution = attribution
        self.decoder = FlowDecoder()
        self.sources = []
        self.rcvbuf_limit = rcvbuf_limit
        for family, proto in wanted:
            if family == AF_INET:
                self.wanted4[proto] = 1
            else:
                self.wanted6[proto] = 1
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise _error("epoll")
        self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake < 0:
            raise _error("eventfd")
        self._watch(self.wake, WAKE)

    def __dealloc__(self):
        self._forget()

    cdef void _forget(self) noexcept nogil:
        if self.epoll >= 0:
            close(self.epoll)
        if self.wake >= 0:
            close(self.wake)
        self.epoll = self.wake = -1

    cdef int _watch(self, int fd, uint32_t number) except -1:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = EPOLLIN
        event.data.u32 = number
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise _error("epoll")
        return 0

    def add(self, Source source not None) -> None:
        """Read this source, too; before run(), or within it."""
        if not 0 <= source.index < SOURCES:
            raise ValueError(f"source {source.index}: there are {SOURCES} at most")
        self.sources.extend([None] * (source.index + 1 - len(self.sources)))
        self.sources[source.index] = source
        self.borrowed[source.index] = <void *>source
        self._watch(source.socket.fileno(), source.index)

    @property
    def most(self) -> int:
        """How many sources there can be."""
        return SOURCES

    def stop(self) -> None:
        """Have run() read what is queued and return, within half a second; from any thread."""
        self.stopping = True
        for source in self._sources():
            source.stop()
        eventfd_write(self.wake, 1)

    def run(self, settled=None) -> None:
        """Read until stop() or a failure, which is kept in `failure`; then no more records will come.

        settled: called before, to give up privileges.
        """
        cdef int result = 0
        try:
            if settled is not None:
                settled()
            with nogil:
                self._each_table(True)
            while not self.stopping and result >= 0:
                with nogil:
                    result = self._pump()
                    self._each_table(False)
                self.attribution.refresh()
            for source in self._sources():
                source.leave()
            with nogil:
                self._end()
            if result < 0:
                raise OSError(-result, f"receiving conntrack events: {os.strerror(-result)}")
        except BaseException as error:
            self.failure = error
        finally:
            self.ring.end()

    def close(self) -> None:
        """Close all descriptors, the ring's too; after run() has returned."""
        for source in self.sources:
            if source is not None:
                source.close()
        self.ring.close()
        self._forget()

    @property
    def undecoded(self) -> int:
        """Messages that were too long or not understood."""
        return self.decoder.errors + sum([source.socket.truncated for source in self._sources()])

    def _sources(self):
        return [source for source in self.sources if source is not None]

    cdef bint _is_wanted(self, const flow_t *flow) noexcept nogil:
        if flow.orig.family == AF_INET:
            return self.wanted4[flow.orig.proto]
        return flow.orig.family == AF_INET6 and self.wanted6[flow.orig.proto]

    cdef int _take(self, Source source, int count) noexcept nogil:
        """Decode `count` received datagrams into the ring, which has room for them, and attribute; 0 or -errno."""
        cdef int room = 0
        cdef record_t *records = self.ring.room(&room)
        cdef int64_t time = _now(CLOCK_REALTIME)
        cdef size_t length = 0
        cdef const void *data
        cdef int kept = 0
        cdef int i
        for i in range(count):
            data = source.socket.datagram(i, &length)
            memset(&records[kept], 0, sizeof(record_t))
            # An event is one datagram, and alone in it.
            if data == NULL or self.decoder.decode(data, length, &records[kept].flow, 1, time, source.index) != 1:
                continue
            self.events += 1
            if not self._is_wanted(&records[kept].flow):
                self.filtered += 1
            elif source.admit(&records[kept].flow):
                kept += 1
        return self._deliver(source, records, kept, source.emptied)

    cdef int _deliver(self, Source source, record_t *records, int count, int64_t since) noexcept nogil:
        """Attribute and publish the first `count` records of the ring's room, which are decoded and began after `since`:
        0 or -errno.
        """
        cdef int i
        source.active = _now(CLOCK_MONOTONIC)
        self.attribution.begin(source.active, since)
        for i in range(count):
            self.attribution.foresee(&records[i])
        for i in range(count):
            records[i].flow.netns_inode = source.inode
            self.attribution.resolve(&records[i])
            self.named += records[i].owner.process != NULL
        return self.ring.publish(count)

    cdef int _read(self, Source source, int room) noexcept nogil:
        """Receive and deliver at most `room` events: how many there were, 0 if none is left, -ENOBUFS if some were lost
        before the next one, or another -errno."""
        cdef int count = source.socket.receive(room)
        cdef int result
        if count == -ENOBUFS:
            source.lose()
            source.socket.grow(self.rcvbuf_limit, True)
        if count <= 0:
            return count
        result = self._take(source, count)
        return result if result < 0 else count

    cdef int _receive(self, Source source) noexcept nogil:
        """Read a source once; 1 if more may be there, 0 if not, or -errno."""
        cdef int64_t asked
        cdef int room = 0
        cdef int count
        self.ring.room(&room)
        if room == 0:
            return 0
        asked = _now(CLOCK_MONOTONIC)
        count = self._read(source, room)
        if count <= 0:
            return 1 if count == -ENOBUFS else count
        if count < source.socket.slots:
            if count < room:
                source.emptied = asked
            return count == room
        # If it cannot grow, what does not fit is counted.
        source.socket.grow(self.rcvbuf_limit, False)
        return 1

    cdef int _serve(self, Source source) noexcept nogil:
        """Read a source that is ready until it is empty, and make up for what it lost; 0 or -errno."""
        cdef int result = 1
        cdef int round
        for round in range(ROUNDS):
            result = self._receive(source)
            if result != 1:
                break
        self.pace.drained = self.pace.drained and result == 0
        # Only when the queue is empty: before, what seems lost may just be waiting.
        if result == 0 and source.overrun:
            result = self._recover(source)
        # Lost while the table was read: no further event may ever come to remind us.
        self.behind = self.behind or source.overrun
        return min(result, 0)

    cdef int _drain(self, Source source) noexcept nogil:
        """Read a source until the kernel says that nothing is left, or stop(); 0 or -errno."""
        cdef int room = 0
        cdef int result
        while not self.stopping:
            self.ring.room(&room)
            if room == 0:
                result = self._wait_for_room()
                if result < 0:
                    return result
                continue
            # Fewer than there are slots may also have been cut short by an overrun.
            result = self._read(source, room)
            if result == 0 or result < 0 and result != -ENOBUFS:
                return result
        return 0

    cdef record_t *_room(self, int *room) noexcept nogil:
        """Room in the ring for some records, how many in *room; NULL if stop() came before there was any."""
        cdef record_t *records = self.ring.room(room)
        while room[0] == 0:
            if self.stopping or self._wait_for_room() < 0:
                return NULL
            records = self.ring.room(room)
        return records

    cdef int _deliver_missed(self, Source source, int count) noexcept nogil:
        """Deliver those of the first `count` of table.flows that are wanted; 0 or -errno."""
        cdef int64_t time = _now(CLOCK_REALTIME)
        cdef record_t *records
        cdef int room = 0
        cdef int i = 0
        cdef int kept
        cdef int result
        while i < count:
            records = self._room(&room)
            if records == NULL:
                return 0
            kept = 0
            while i < count and kept < room:
                if self._is_wanted(&source.table.flows[i]):
                    memset(&records[kept], 0, sizeof(record_t))
                    records[kept].flow = source.table.flows[i]
                    records[kept].flow.type = EVENT_NEW
                    records[kept].flow.has |= FLOW_RECOVERED
                    records[kept].flow.time = time
                    kept += 1
                i += 1
            source.recoveries += kept
            result = self._deliver(source, records, kept, source.unsure)
            if result < 0:
                return result
        return 0

    cdef int _recover(self, Source source) noexcept nogil:
        """Deliver the flows of the table whose events were lost, and tell of the others; 0 or -errno."""
        cdef int count = 0
        cdef int result = 0
        cdef uint64_t dropped
        source.overrun = False
        source.end_reading()
        source.socket.count_lost()
        dropped = source.socket.lost
        if source.table is not None:
            count = source.begin_table()
            while count > 0 and result == 0:
                result = self._deliver_missed(source, count)
                count = source.next_table()
            # A table that cannot be read does not end the events: what was lost is counted.
            source.end_table(count == 0)
            result = min(result, self._drain(source))
            # What is still queued at a stop() is read in the end: of a recovered flow, too.
            if not self.stopping:
                source.end_doubt()
            source.socket.count_lost()
            if source.socket.lost != dropped:
                source.lose()
        return result if result < 0 else self._tell_lost(source, dropped)

    cdef int _tell_lost(self, Source source, uint64_t dropped) noexcept nogil:
        """Put a LOST record in place of those of the first `dropped` events that were not recovered; 0 or -errno."""
        cdef record_t *record
        cdef int room = 0
        cdef uint64_t recovered = source.told_recovered
        cdef uint64_t lost = source.untold(dropped)
        # Of recovered ones too, with 0 lost: whoever waits for the next record has not yet heard of them.
        if lost == 0 and source.told_recovered == recovered:
            return 0
        record = self._room(&room)
        if record == NULL:
            return 0
        memset(record, 0, sizeof(record_t))
        record.flow.type = EVENT_LOST
        record.flow.time = _now(CLOCK_REALTIME)
        record.flow.packets[0] = lost
        record.flow.netns_inode = source.inode
        return self.ring.publish(1)

    cdef int _wait_for_room(self) noexcept nogil:
        """Until the ring has room, stop() is called or housekeeping is due; 0 or -errno."""
        cdef pollfd fds[2]
        cdef int i
        for i in range(2):
            fds[i].fd = self.ring.freed if i == 0 else self.wake
            fds[i].events = POLLIN
            fds[i].revents = 0
        if poll(fds, 2, HOUSEKEEPING_MS) < 0 and errno != EINTR:
            return -errno
        return 0

    cdef int _catch_up(self) noexcept nogil:
        """Serve the sources that lost events while their table was read, though nothing may wait there; 0 or -errno."""
        cdef int i
        cdef int result = 0
        self.behind = False
        for i in range(SOURCES):
            if self.borrowed[i] != NULL and (<Source>self.borrowed[i]).overrun:
                result = min(result, self._serve(<Source>self.borrowed[i]))
        return result

    cdef int _pump(self) noexcept nogil:
        """Read until stop() or for about HOUSEKEEPING_MS; 0 or -errno."""
        cdef epoll_event ready[READY]
        cdef int64_t until = _now(CLOCK_MONOTONIC) + <int64_t>HOUSEKEEPING_MS * 1000000
        cdef int64_t left
        cdef int room = 0
        cdef int count
        cdef int i
        cdef int result
        # Without the kernel's notes an owner is lost with its socket.
        cdef bint hasty = not self.attribution.off and self.attribution.notes is None
        while not self.stopping:
            left = (until - _now(CLOCK_MONOTONIC)) // 1000000
            if left <= 0:
                break
            self.ring.room(&room)
            if room == 0:
                result = self._wait_for_room()
                if result < 0:
                    return result
                continue
            count = epoll_wait(self.epoll, ready, READY, 0 if self.behind or self.reading else <int>left)
            if count < 0 and errno != EINTR:
                return -errno
            if self.behind:
                result = self._catch_up()
                if result < 0:
                    return result
            pace_keep(&self.pace, self.events, hasty)
            for i in range(count):
                if ready[i].data.u32 == WAKE:
                    continue
                result = self._serve(<Source>self.borrowed[ready[i].data.u32])
                if result < 0:
                    return result
            if self.reading:
                self._read_on()
        return 0

    cdef void _each_table(self, bint seed) noexcept nogil:
        """Have what was reported held against the tables: at the start, and when it has grown.

        And take note where nothing is queued: what comes next is no older.
        """
        cdef int64_t now = _now(CLOCK_MONOTONIC)
        cdef int i
        for i in range(SOURCES):
            if self.borrowed[i] == NULL or self.stopping:
                continue
            if (<Source>self.borrowed[i]).socket.queued() == 0:
                (<Source>self.borrowed[i]).emptied = now
            if seed:
                (<Source>self.borrowed[i]).begin_reading(SIFT_SEED)
                # At once: what is found later may be new, and its event lost.
                (<Source>self.borrowed[i]).end_reading()
            elif (<Source>self.borrowed[i]).wants_sweep(now):
                (<Source>self.borrowed[i]).begin_reading(SIFT_SWEEP)
                self.reading = True

    cdef void _read_on(self) noexcept nogil:
        """Go on reading tables, for SLICE_NS."""
        cdef int64_t until = _now(CLOCK_MONOTONIC) + SLICE_NS
        cdef int i
        self.reading = False
        for i in range(SOURCES):
            if self.borrowed[i] == NULL:
                continue
            # Of one that cannot be read, what was known stays known.
            while (<Source>self.borrowed[i]).reading and _now(CLOCK_MONOTONIC) < until:
                (<Source>self.borrowed[i]).read_on()
            self.reading = self.reading or (<Source>self.borrowed[i]).reading

    cdef int _end(self) noexcept nogil:
        """Read what is still queued, for END_MS at most, and tell of losses that were not yet told; 0 or -errno."""
        cdef int64_t until = _now(CLOCK_MONOTONIC) + END_MS * <int64_t>1000000
        cdef int result = 0
        cdef int more
        cdef int i
        for i in range(SOURCES):
            if self.borrowed[i] == NULL:
                continue
            more = 1
            while more == 1 and _now(CLOCK_MONOTONIC) < until:
                more = self._receive(<Source>self.borrowed[i])
            (<Source>self.borrowed[i]).socket.count_lost()
            result = min(result, more)
            result = min(result, self._tell_lost(<Source>self.borrowed[i], (<Source>self.borrowed[i]).socket.lost))
        return result
