"""From a source's datagrams into the ring: decode, filter, attribute; many events without the GIL.

It never waits for whoever takes the records, until the ring is full; then the kernel's receive buffers hold what comes,
and what they cannot hold is counted.
"""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close
from sys_socket cimport (
    AF_INET, AF_INET6, EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, eventfd_read, eventfd_write, poll, pollfd,
)
from nfct_fast.events.flow cimport EVENT_LOST
from nfct_fast.kernel.procfs cimport procfs_monotonic_ns

import os

cdef enum:
    ROOM_MS = 1000               # between two looks whether there is room
    PROGRAMS_MS = 100            # and between two at what is told of programs meanwhile


cdef int64_t time_of_day() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


@cython.final
@cython.auto_pickle(False)
cdef class Intake:
    """wanted: pairs of family and protocol. OSError."""

    def __cinit__(self, Ring ring not None, Resolver attribution not None, wanted):
        self.wake = -1
        self.ring = ring
        self.attribution = attribution
        self.decoder = FlowDecoder()
        for family, proto in wanted:
            if family == AF_INET:
                self.wanted4[proto] = 1
            else:
                self.wanted6[proto] = 1
        self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake < 0:
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")

    def __dealloc__(self):
        if self.wake >= 0:
            close(self.wake)

    def stop(self, bint deserted=False) -> None:
        """Have waits end; from any thread. deserted: nobody will take what there is no room for, so that it is only counted."""
        self.stopping = True
        self.deserted = self.deserted or deserted
        eventfd_write(self.wake, 1)

    def close(self) -> None:
        """Close its descriptors, the ring's too; closing twice is harmless."""
        self.ring.close()
        if self.wake >= 0:
            close(self.wake)
        self.wake = -1

    @property
    def undecoded(self) -> int:
        """Messages that were not understood."""
        return self.decoder.errors

    cdef bint is_wanted(self, const flow_t *flow) noexcept nogil:
        if flow.orig.family == AF_INET:
            return self.wanted4[flow.orig.proto]
        return flow.orig.family == AF_INET6 and self.wanted6[flow.orig.proto]

    cdef int _take(self, Source source, int count) noexcept nogil:
        """Decode `count` received datagrams into the ring, which has room for them, and attribute; 0 or -errno."""
        cdef int room = 0
        cdef record_t *records = self.ring.room(&room)
        cdef int64_t time = time_of_day()
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
            if not self.is_wanted(&records[kept].flow):
                self.filtered += 1
            elif source.admit(&records[kept].flow):
                kept += 1
        return self.deliver(source, records, kept, source.emptied)

    cdef int deliver(self, Source source, record_t *records, int count, int64_t since) noexcept nogil:
        cdef int i
        source.active = procfs_monotonic_ns()
        self.attribution.begin(source.active, since)
        self.attribution.resolve(records, count)
        for i in range(count):
            records[i].flow.netns_inode = source.inode
            self.named += records[i].owner.process != NULL
        return self.ring.publish(count)

    cdef int read(self, Source source, int room) noexcept nogil:
        cdef int count = source.socket.receive(room)
        cdef int result
        if count == -ENOBUFS:
            source.mark_overrun()
            # Where the kernel has no memory for events, a larger buffer is none to ask it for.
            if source.socket.unexplained == 0:
                source.grow(True)
        if count <= 0:
            return count
        result = self._take(source, count)
        return result if result < 0 else count

    cdef record_t *room(self, int *room) noexcept nogil:
        cdef record_t *records = self.ring.room(room)
        while room[0] == 0:
            if self.stopping or self.wait_for_room(ROOM_MS) < 0:
                return NULL
            records = self.ring.room(room)
        return records

    cdef int tell_lost(self, Source source, bint hopeful) noexcept nogil:
        cdef record_t *record
        cdef int room = 0
        cdef uint64_t recovered = source.reported_recovered
        cdef uint64_t unmade = source.reported_unmade
        cdef uint64_t lost = source.take_unreported(hopeful)
        # Of recovered ones too, with 0 lost: whoever waits for the next record has not yet heard of them.
        unmade = source.reported_unmade - unmade
        if lost == 0 and unmade == 0 and source.reported_recovered == recovered:
            return 0
        record = self.room(&room)
        if record == NULL:
            self.unsaid += lost
            self.rushed = self.rushed or unmade
            return 0
        memset(record, 0, sizeof(record_t))
        record.flow.type = EVENT_LOST
        record.flow.time = time_of_day()
        record.flow.packets[0] = lost
        record.flow.packets[1] = unmade
        record.flow.netns_inode = source.inode
        return self.ring.publish(1)

    cdef int wait_for_room(self, int timeout) noexcept nogil:
        cdef pollfd fds[2]
        cdef uint64_t times
        cdef int i
        for i in range(2):
            fds[i].fd = self.ring.freed if i == 0 else self.wake
            fds[i].events = POLLIN
            fds[i].revents = 0
        # However long that takes, programs go on to start and end.
        self.attribution.drain()
        if poll(fds, 2, min(timeout, PROGRAMS_MS)) < 0 and errno != EINTR:
            return -errno
        if fds[1].revents:
            eventfd_read(self.wake, &times)
        return 0

    cdef void finish(self, Source source, int64_t until, int64_t counted) noexcept nogil:
        # What is wrong with one socket was said if it ended the reading, and is no reason to leave the others.
        if self._read_rest(source, until) == 1:
            self._count_rest(source, counted)
        source.count()
        self.tell_lost(source, False)

    cdef int _read_rest(self, Source source, int64_t until) noexcept nogil:
        """Deliver what is queued: 0 if that was all, 1 if there was no time or room for it, or -errno."""
        cdef int64_t left
        cdef int room = 0
        cdef int result
        while True:
            left = until - procfs_monotonic_ns()
            self.ring.room(&room)
            if left <= 0 or room == 0 and self.deserted:
                return 1
            if room == 0:
                result = self.wait_for_room(<int>(left // 1000000) + 1)
                if result < 0:
                    return result
                continue
            result = self.read(source, room)
            if result == 0 or result < 0 and result != -ENOBUFS:
                return result

    cdef int _count_rest(self, Source source, int64_t until) noexcept nogil:
        """Count what is queued, which takes 0.9 us each; 0 or -errno. If there is no time, what is left is one at least."""
        cdef int count
        while True:
            if procfs_monotonic_ns() > until and source.socket.queued() > 0:
                self.rushed = True
                self.unread += 1
                return 0
            count = source.socket.receive(source.socket.slots)
            if count == -ENOBUFS:
                source.mark_overrun()
            elif count <= 0:
                return count
            else:
                self.unread += self._unheard(source, count)

    cdef int _unheard(self, Source source, int count) noexcept nogil:
        """How many of the received datagrams are of flows that were not told: all, but where some had just been recovered."""
        cdef size_t length = 0
        cdef const void *data
        cdef flow_t flow
        cdef int i
        cdef int reported = 0
        for i in range(count if source.doubtful else 0):
            data = source.socket.datagram(i, &length)
            if data != NULL and self.decoder.decode(data, length, &flow, 1, 0, source.index) == 1:
                reported += not source.admit(&flow)
        return count - reported
