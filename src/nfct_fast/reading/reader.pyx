"""The thread that reads: waits for sources that are ready and has each read in turn."""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport close
from sys_epoll cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLET, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait,
)
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_read, eventfd_write
from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.events.pacing cimport pace_keep
from nfct_fast.kernel.procfs cimport procfs_monotonic_ns
from nfct_fast.records.ring cimport Ring
from nfct_fast.events.sources cimport SOURCES

import os
from _thread import allocate_lock

cdef enum:
    READY = 16
    HOUSEKEEPING_MS = 1000
    END_MS = 300                 # how long it is waited for room for the rest in the end,
    COUNT_MS = 400               # and it is counted: 400,000 events, those of 256 MiB
    ROUNDS = 4                   # receives from one source before others have their turn
    WAKE = SOURCES               # epoll's number for the eventfd of stop(),
    PROGRAMS = SOURCES + 1       # for what the kernel tells of programs,
    ERRAND = SOURCES + 2         # and for add() and retire()


cdef object _error(str what):
    cdef int number = errno
    return OSError(number, f"{what}: {os.strerror(number)}")


@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    """Reads the sources added to it into a ring, in run(), until stop(). wanted: pairs of family and protocol. chore: called
    in between, about once a second."""

    def __cinit__(self, Ring ring not None, Resolver attribution not None, wanted, chore=None):
        self.epoll = self.errand = -1
        self.intake = Intake(ring, attribution, wanted)
        self.sources = Sources()
        self.recovery = Recovery(self.intake, self.sources)
        self.chore = chore
        self.finished = allocate_lock()
        self.finished.acquire()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise _error("epoll")
        self.errand = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.errand < 0:
            raise _error("eventfd")
        self._watch(self.intake.wake, WAKE)
        self._watch(self.errand, ERRAND)
        if attribution.fileno() >= 0:
            self._watch(attribution.fileno(), PROGRAMS, EPOLLIN | EPOLLET)

    def __dealloc__(self):
        self._forget()

    cdef void _forget(self) noexcept nogil:
        if self.epoll >= 0:
            close(self.epoll)
        if self.errand >= 0:
            close(self.errand)
        self.epoll = self.errand = -1

    cdef int _watch(self, int fd, uint32_t number, uint32_t events=EPOLLIN) except -1:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = events
        event.data.u32 = number
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise _error("epoll")
        return 0

    def add(self, Source source not None) -> None:
        """Read this source, too; from any thread. OSError."""
        if self.intake.stopping:
            source.stop()
        self._watch(source.socket.fileno(), source.index)
        self.sources.add(source)
        eventfd_write(self.errand, 1)

    def retire(self, Source source not None) -> None:
        """Read what it still has, and then let it go; from any thread. OSError."""
        source.leave()
        source.leaving = True
        eventfd_write(self.errand, 1)

    def stop(self, deserted=False) -> None:
        """Have run() read what is queued and return, within half a second; from any thread.

        deserted: nobody will take what there is no room for, so that it is only counted.
        """
        self.intake.stop(deserted)
        for source in self.sources:
            source.stop()

    def run(self, settled=None) -> None:
        """Read until stop() or a failure, which is kept in `failure`; then no more records will come.

        settled: called before, to give up privileges.
        """
        cdef int result = 0
        cdef Resolver attribution = self.intake.attribution
        try:
            if settled is not None:
                settled()
            while not self.intake.stopping and result >= 0:
                with nogil:
                    result = self._pump()
                    attribution.drain()
                    self.recovery.sweep()
                attribution.refresh()
                if self.chore is not None:
                    self.chore()
            if result < 0:
                raise OSError(-result, f"receiving conntrack events: {os.strerror(-result)}")
        except BaseException as error:
            self.failure = error
        finally:
            try:
                self._finish()
            finally:
                self.finished.release()

    def _finish(self):
        # Whatever ended it: what is queued has happened before, and no more may come while it is read.
        self.intake.stopping = True
        for source in self.sources:
            source.stop()
            try:
                source.leave()
            except OSError as error:
                self.failure = self.failure or error
        with nogil:
            self._end()
        self.intake.ring.end()

    def close(self) -> None:
        """Close all descriptors, the ring's too; after run() has returned."""
        self.sources.close()
        self.intake.close()
        self._forget()

    cdef int _receive(self, Source source) noexcept nogil:
        """Read a source once; 1 if more may be there, 0 if not, or -errno."""
        cdef int64_t asked
        cdef int room = 0
        cdef int count
        self.intake.ring.room(&room)
        if room == 0:
            return 0
        asked = procfs_monotonic_ns()
        count = self.intake.read(source, room)
        if count <= 0:
            return 1 if count == -ENOBUFS else count
        if count < source.socket.slots:
            if count < room:
                source.emptied = asked
            # After a loss until the kernel says that nothing is left: then it is known what kind of loss it was.
            return count == room or source.socket.congested
        # If it cannot grow, what does not fit is counted.
        source.grow(False)
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
        if result == 0:
            result = self._emptied(source)
        # Lost while the table was read: no further event may ever come to remind us.
        self.behind = self.behind or source.overrun and not source.reading
        if result == 0 and source.leaving:
            result = self._let_go(source)
        return min(result, 0)

    cdef int _emptied(self, Source source) noexcept nogil:
        """What is to be done where nothing is queued: before, what seems lost may just be waiting. 0 or -errno."""
        cdef int result = 0
        if source.settling:
            result = self.recovery.settle(source)
        if source.overrun and not source.reading and result == 0:
            result = self.recovery.begin(source)
        return result

    cdef int _let_go(self, Source source) noexcept nogil:
        """If a source that is leaving has nothing more to tell, and is empty, let it go: it may be gone at once. 0 or -errno."""
        cdef epoll_event event
        cdef int result
        if source.overrun or source.reading or source.settling:
            return 0
        source.count()
        result = self.intake.tell_lost(source, False)
        memset(&event, 0, sizeof(event))
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, source.socket.fd, &event)
        self.sources.let_go(source.index)
        return result

    cdef int _catch_up(self) noexcept nogil:
        """Serve the sources where something is to be done though nothing may wait there; 0 or -errno."""
        cdef int i
        cdef int result = 0
        cdef void *at
        self.behind = False
        for i in range(self.sources.bound):
            at = self.sources.get(i)
            if at == NULL or (<Source>at).reading:
                continue
            if (<Source>at).overrun or (<Source>at).settling or (<Source>at).leaving:
                result = min(result, self._serve(<Source>at))
        return result

    cdef int _pump(self) noexcept nogil:
        """Read until stop() or for about HOUSEKEEPING_MS; 0 or -errno."""
        cdef epoll_event ready[READY]
        cdef int64_t until = procfs_monotonic_ns() + <int64_t>HOUSEKEEPING_MS * 1000000
        cdef int64_t left
        cdef int room = 0
        cdef int count
        cdef int i
        cdef int result
        cdef uint64_t times
        cdef void *at
        # Without the kernel's notes an owner is lost with its socket.
        cdef bint hasty = not self.intake.attribution.off and self.intake.attribution.notes is None
        while not self.intake.stopping:
            left = (until - procfs_monotonic_ns()) // 1000000
            if left <= 0:
                break
            self.intake.ring.room(&room)
            if room == 0:
                result = self.intake.wait_for_room(HOUSEKEEPING_MS)
                if result < 0:
                    return result
                continue
            count = epoll_wait(self.epoll, ready, READY, 0 if self.behind or self.recovery.reading else <int>left)
            if count < 0 and errno != EINTR:
                return -errno
            if self.behind:
                result = self._catch_up()
                if result < 0:
                    return result
            pace_keep(&self.pace, self.intake.events, hasty)
            for i in range(count):
                if ready[i].data.u32 == WAKE:
                    continue
                if ready[i].data.u32 == PROGRAMS:
                    self.intake.attribution.drain()
                    continue
                if ready[i].data.u32 == ERRAND:
                    eventfd_read(self.errand, &times)
                    self.behind = self.recovery.reading = True
                    continue
                at = self.sources.get(ready[i].data.u32)
                if at == NULL:
                    continue
                result = self._serve(<Source>at)
                if result < 0:
                    return result
            if self.recovery.reading:
                result = self.recovery.read_on()
                if result < 0:
                    return result
                self.behind = True      # what it ended with
        return 0

    cdef void _end(self) noexcept nogil:
        """Read what is still queued, while whoever takes it makes room, for END_MS at most; count what is left then, and
        tell of losses that were not yet told."""
        cdef int64_t until = procfs_monotonic_ns() + END_MS * <int64_t>1000000
        cdef void *at
        cdef int i
        for i in range(self.sources.bound):
            at = self.sources.get(i)
            if at != NULL:
                self.recovery.end(<Source>at)
                self.intake.finish(<Source>at, until, until + COUNT_MS * <int64_t>1000000)
