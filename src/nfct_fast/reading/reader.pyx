"""The reading thread, which waits until sources have events and reads each in turn."""
cimport cython
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memset
from posix.unistd cimport close
from sys_epoll cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLET, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait,
)
from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.events.pacing cimport pacing_wait
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.os_error cimport os_error
from nfct_fast.records.ring cimport Ring
from nfct_fast.events.sources cimport SOURCES
from nfct_fast.reading.flow_ends cimport FlowEnds

import os
from _thread import allocate_lock

cdef enum:
    READY = 16
    HOUSEKEEPING_MS = 1000
    SWEPT = 8192                 # remembered flows checked per housekeeping, to free those of namespaces that ended
    DRAIN_MS = 300               # how long queued events are still delivered after stop(), as the consumer makes room
    COUNT_MS = 400               # processor time to count the rest then: enough for 400,000 events, those of 256 MiB
    ROUNDS = 4                   # batches read from one source before others have their turn
    # Values of epoll_event.data: a source's number, which is below SOURCES, or one of these.
    STOPPED = SOURCES            # the eventfd of stop()
    PROCESS_EVENTS = SOURCES + 1     # the resolver's descriptor: process events are to be drained
    SOURCES_CHANGED = SOURCES + 2    # the eventfd of add() and retire()


@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    """A reader of sources into a ring. run() reads the sources that were added, until stop().

    Args:
        ring: The ring in which the records are put.
        attribution: The Resolver that finds the owners.
        flow_filter: Which flows are wanted, a FlowFilter.
        flow_ends: Makes one record per flow; None: events are delivered as they come.
        housekeeping: Called in the reading thread about once a second; may be None.
        listing: The sources are conntrack tables to be listed; run() ends after that.
    """

    def __cinit__(self, Ring ring not None, Resolver attribution not None, flow_filter, FlowEnds flow_ends=None,
                  housekeeping=None, bint listing=False):
        self.epoll = -1
        self.listing = listing
        self.intake = Intake(ring, attribution, flow_filter, flow_ends)
        self.sources = Sources()
        self.recovery = Recovery(self.intake, self.sources)
        self.housekeeping = housekeeping
        self.finished = allocate_lock()
        self.finished.acquire()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise os_error("epoll")
        self.sources_changed = Wakeup()
        self._watch(self.intake.wakeup.fd, STOPPED)
        self._watch(self.sources_changed.fd, SOURCES_CHANGED)
        if attribution.fileno() >= 0:
            self._watch(attribution.fileno(), PROCESS_EVENTS, EPOLLIN | EPOLLET)

    def __dealloc__(self):
        self._close_epoll()

    cdef void _close_epoll(self) noexcept nogil:
        if self.epoll >= 0:
            close(self.epoll)
        self.epoll = -1

    cdef int _watch(self, int fd, uint32_t number, uint32_t events=EPOLLIN) except -1:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = events
        event.data.u32 = number
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise os_error("epoll")
        return 0

    def add(self, Source source not None) -> None:
        """Start reading a source. Any thread may call this. OSError."""
        if self.intake.stopping:
            source.stop()
        self._watch(source.socket.fileno(), source.index)
        self.sources.add(source)
        self.sources_changed.notify()

    def retire(self, Source source not None) -> None:
        """Read what a source still has queued, and then release it. Any thread may call this. OSError."""
        source.retire()
        self.sources_changed.notify()

    def stop(self, no_consumer=False) -> None:
        """Have run() read what is queued and return within 0.7 seconds, or 6 where processors are short.

        Any thread may call this.

        Args:
            no_consumer: The ring is not emptied any more: events that do not fit are only counted.
        """
        self.intake.stop(no_consumer)
        for source in self.sources:
            source.stop()

    def run(self, drop_rights=None) -> None:
        """Read until stop() or an error, which is kept in `failure`; then end the ring.

        Args:
            drop_rights: Called first, to give up this thread's privileges; may be None.
        """
        cdef int result = 0
        cdef Resolver attribution = self.intake.attribution
        try:
            if drop_rights is not None:
                drop_rights()
            while not self.intake.stopping and result >= 0:
                with nogil:
                    result = self._read_events()
                    attribution.drain()
                    self.recovery.sweep()
                    if self.intake.flow_ends is not None:
                        self.intake.flow_ends.live.sweep(SWEPT)
                attribution.refresh()
                if self.housekeeping is not None:
                    self.housekeeping()
                self.turns += 1
            if result < 0:
                raise OSError(-result, "entries may be missing: a conntrack table could not be read whole"
                              if self.listing else f"receiving conntrack events: {os.strerror(-result)}")
        except BaseException as error:
            self.failure = error
        finally:
            try:
                self._finish()
            finally:
                self.finished.release()

    def _finish(self):
        # Whatever ended the reading, queued events happened before it: read them, and receive no further ones
        # meanwhile.
        self.intake.stopping = True
        for source in self.sources:
            source.stop()
            try:
                source.leave()
            except OSError as error:
                self.failure = self.failure or error
        with nogil:
            self._finish_sources()
        self.intake.ring.end()

    def close(self) -> None:
        """Close all descriptors, the ring's included, after run() has returned."""
        self.sources.close()
        self.intake.close()
        self._close_epoll()
        self.sources_changed.close()

    cdef int _receive(self, Source source) noexcept nogil:
        """Read one batch from a source. Return 1 if more may be queued, 0 if not, or -errno."""
        cdef int64_t started
        cdef int room = 0
        cdef int count
        self.intake.ring.room(&room)
        if room == 0:
            return 0
        started = monotonic_ns()
        count = self.intake.read(source, room)
        if count <= 0:
            return 1 if count == -ENOBUFS else count
        if count < source.socket.slots:
            if count < room:
                source.mark_drained(started)
            # After a loss, read on until nothing is queued: only then is it known which kind of loss it was
            # (netlink.pyx).
            return count == room or source.socket.congested
        # All slots were used, so the buffer may have to grow. If it cannot, the kernel counts what does not fit.
        source.grow(False)
        return 1

    cdef int _serve(self, Source source) noexcept nogil:
        """Read a source until it is empty or its turn is over, and recover what it lost. 0 or -errno."""
        cdef int result = 1
        cdef int _
        for _ in range(ROUNDS):
            result = self._receive(source)
            if result != 1:
                break
        self.pacing.drained = self.pacing.drained and result == 0
        if result == 0:
            result = self._on_drained(source)
        # After a loss during a dump there may be no further event to wake us.
        self.catch_up_due = self.catch_up_due or source.overrun and not source.dump_in_progress
        if result == 0 and source.retiring:
            result = self._release(source)
        return min(result, 0)

    cdef int _on_drained(self, Source source) noexcept nogil:
        """Recover from losses, now that the queue is empty and so nothing lost can still be queued. 0 or -errno."""
        cdef int result = 0
        if source.finish_due:
            result = self.recovery.report_unrecovered(source)
        if source.overrun and not source.dump_in_progress and result == 0:
            result = self.recovery.begin(source)
        return result

    cdef int _release(self, Source source) noexcept nogil:
        """Release a retired, empty source unless recovery still needs it. It may be freed immediately. 0 or -errno."""
        cdef epoll_event event
        cdef int result
        if source.overrun or source.dump_in_progress or source.finish_due:
            return 0
        source.count_losses()
        result = self.intake.report_loss(source, False)
        memset(&event, 0, sizeof(event))
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, source.socket.fd, &event)
        if self.intake.flow_ends is not None:
            self.intake.flow_ends.live.forget_namespace(<uint16_t>source.index)
        self.sources.release(source.index)
        return result

    cdef int _catch_up(self) noexcept nogil:
        """Serve the sources that have something to do even though nothing may be queued. 0 or -errno."""
        cdef int i
        cdef int result = 0
        cdef void *at
        self.catch_up_due = False
        for i in range(self.sources.bound):
            at = self.sources.get(i)
            if at == NULL or (<Source>at).dump_in_progress:
                continue
            if (<Source>at).overrun or (<Source>at).finish_due or (<Source>at).retiring:
                result = min(result, self._serve(<Source>at))
        return result

    cdef int _read_events(self) noexcept nogil:
        """Read until stop(), or for about HOUSEKEEPING_MS. 0 or -errno."""
        cdef epoll_event ready[READY]
        cdef int64_t until = monotonic_ns() + <int64_t>HOUSEKEEPING_MS * 1000000
        cdef int64_t left
        cdef int room = 0
        cdef int count
        cdef int i
        cdef int result
        cdef void *at
        # Without the BPF look-up an owner can be found only while its socket is open.
        cdef bint brief = not self.intake.attribution.off and self.intake.attribution.bpf_lookup is None
        while not self.intake.stopping:
            left = (until - monotonic_ns()) // 1000000
            if left <= 0:
                break
            self.intake.ring.room(&room)
            if room == 0:
                result = self.intake.wait_for_room(HOUSEKEEPING_MS)
                if result < 0:
                    return result
                continue
            if self.catch_up_due or self.recovery.in_progress:
                left = 0
            count = epoll_wait(self.epoll, ready, READY, <int>left)
            if count < 0 and errno != EINTR:
                return -errno
            if self.catch_up_due:
                result = self._catch_up()
                if result < 0:
                    return result
            pacing_wait(&self.pacing, self.intake.events, brief)
            for i in range(count):
                if ready[i].data.u32 == STOPPED:
                    continue
                if ready[i].data.u32 == PROCESS_EVENTS:
                    self.intake.attribution.drain()
                    continue
                if ready[i].data.u32 == SOURCES_CHANGED:
                    self.sources_changed.drain()
                    self.catch_up_due = self.recovery.in_progress = True
                    continue
                at = self.sources.get(ready[i].data.u32)
                if at == NULL:
                    continue
                result = self._serve(<Source>at)
                if result < 0:
                    return result
            if self.recovery.in_progress:
                result = self.recovery.advance()
                if result < 0:
                    return result
                self.catch_up_due = True      # a dump may be over
                if self.listing and not self.recovery.in_progress:
                    self.intake.stopping = True
                    return self._listed()
        return 0

    cdef int _listed(self) noexcept nogil:
        """After all dumps: 0, or -EAGAIN if entries may be missing."""
        cdef int i
        cdef void *at
        for i in range(self.sources.bound):
            at = self.sources.get(i)
            if at != NULL and (<Source>at).dump_incomplete:
                return -EAGAIN
        return 0

    cdef void _finish_sources(self) noexcept nogil:
        """Deliver what is queued for up to DRAIN_MS, count the rest, and report losses."""
        cdef int64_t until = monotonic_ns() + DRAIN_MS * <int64_t>1000000
        cdef int64_t count_ns = COUNT_MS * <int64_t>1000000
        cdef void *at
        cdef int i
        for i in range(self.sources.bound):
            at = self.sources.get(i)
            if at != NULL:
                self.recovery.finish(<Source>at)
                self.intake.drain_rest(<Source>at, until, &count_ns)
