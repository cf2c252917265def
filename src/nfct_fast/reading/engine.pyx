"""The engine of a Conntrack: its threads, everything they use, and the consumer's side of the ring.

It holds no reference to the Conntrack, so that one that was never closed can be collected. However a Conntrack ends (by
close(), by the garbage collector, or because opening it failed), Engine.close() ends its threads. In a forked child
close() only closes the descriptors: it touches nothing that is shared with the parent, and reads nothing that the
parent's threads may have left half changed.
"""
cimport cython
from cpython.ref cimport Py_INCREF
from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset
from posix.unistd cimport close as c_close
from sys_epoll cimport EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait
from nfct_fast.reading.flow_ends cimport FlowEnds
from nfct_fast.records.live_flows cimport LiveFlows
from nfct_fast.records.flow_counts cimport FlowCounts
from nfct_fast.records.record cimport RECORD_LOSS
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.os_error cimport os_error
from nfct_fast.output.record_writer cimport writer_error

import os
from _thread import allocate_lock, get_ident, start_new_thread

from nfct_fast.events.receive_memory import ReceiveMemory, Share
from nfct_fast.events.table_fill import open_table_fill
from nfct_fast.namespaces.opener import Opener
from nfct_fast.monitoring.follower import Follower
from nfct_fast.events.open_sources import explain_descriptor_limit
from nfct_fast.monitoring.notices import Notices
from nfct_fast.events.tracking import Tracking
from nfct_fast.reading.source_opener import SourceOpener

_RING = 32768
_RECORDING_S = 1.0       # how long close() waits until all is written to a recording

cdef enum:
    READY = 8
    GATHER_MS = 10       # how long records are gathered for a task, while its event loop waits
    WRITE_MS = 100       # how long records are written before taking the GIL again, which takes 80 us with cold caches


def _metadata(host):
    """What all rows of batches have in common, by the names that JSON has for it."""
    ids = {"machine_id": host.machine_id, "boot_id": host.boot_id}
    return {"schema": "1", "host": host.name, **{name: id for name, id in ids.items() if id is not None}}


@cython.final
@cython.auto_pickle(False)
cdef class Engine:
    """The threads and descriptors of one Conntrack. Opened once, closed once. One thread at a time consumes records."""

    def __cinit__(self):
        self.epoll = -1
        self.fork_guard = ForkGuard()
        self.lock = allocate_lock()

    def open(self, flow_filter, rights, bint track, attribution, spec, probe, int64_t rcvbuf, int64_t memory,
             presentation, redactor, record=None, store=None, flows=None, FlowCounts counts=None, first_seen=None,
             bint listing=False, **opener_arguments) -> tuple[str, ...]:
        """Open everything and start the threads.

        Args:
            flow_filter: Which flows are wanted, a FlowFilter.
            rights: A Rights, whose drop() each thread calls first, or None.
            track: Whether to turn connection tracking on.
            attribution: Keyword arguments of Resolver.
            spec: The namespaces to monitor: None, a name, pid or path, or "all".
            probe: Whether to send datagrams over loopback to see if events arrive.
            rcvbuf: Bytes of the first receive buffer.
            memory: Bytes of all receive buffers together.
            presentation: A Presentation, of the flows.
            redactor: A Redactor, or None.
            record: File, Presentation and Redactor (or None) of a recording of all that is delivered; or None.
            store: StoreLink, Presentation and Redactor (or None) of a store of the same; or None.
            flows: To deliver one record per flow at its end: how many live flows are remembered, and whether NEW
                events are delivered as well. Otherwise None.
            counts: Where all that is taken is counted, a FlowCounts, or None.
            first_seen: A FirstSeen, which marks what was never seen before; or None.
            listing: Deliver what the conntrack tables contain, and end.
            opener_arguments: Further keyword arguments of SourceOpener.

        Returns:
            Why events may never come, one sentence each.

        Raises:
            OSError, ValueError: Opening failed. close() must be called in this case, too.
        """
        if store is not None:
            self.store = store[0]
        drop_rights, spawn_helper = (None, None) if rights is None else (rights.drop, rights.spawn_helper)
        self.ring = Ring(_RING)
        self.batch = TakenRecords(self.ring, self.fork_guard, presentation, redactor)
        self.counts = self.batch.counts = counts
        self.attribution = Resolver.__new__(Resolver)     # so that close() finds it if its __init__ fails
        self.attribution.__init__(**attribution, drop_rights=drop_rights, spawn_helper=spawn_helper)
        self.notices = Notices()
        if track:
            self.tracking = Tracking(self.notices)
        everywhere = spec == "all"
        flow_ends = None if flows is None else FlowEnds(self.attribution, LiveFlows(flows[0]), flows[1])
        self.reader = Reader(self.ring, self.attribution, flow_filter, flow_ends,
                             self.tracking.check if track and not everywhere else None, listing)
        with explain_descriptor_limit():
            opener = (<object>self.attribution).opener
            if opener is None:
                opener = self.opener = Opener(spawn_helper=spawn_helper if everywhere else None)
            source_opener = self.source_opener = SourceOpener(
                self.reader, self.attribution, opener, self.tracking, spawn_helper is None, flow_filter, self.notices,
                whole_flows=flows is not None, listing=listing, **opener_arguments)
            if everywhere:
                self.follower = Follower(source_opener, rcvbuf, memory, self.notices)
                reasons = self.follower.begin(probe)
            else:
                reasons = source_opener.open_namespaces(spec, Share(ReceiveMemory(memory), memory), rcvbuf, probe)
        if counts is not None:
            self.table_fill = open_table_fill(None if everywhere else spec)
        if track:
            self.tracking.announce()
        self._open_epoll()
        if record is not None:
            # Last, so that a failure leaves no file.
            self.recorder = self.reader.intake.recorder = Recorder(*record, self.notices)
            self.recorder.start(drop_rights)
        self.reader.intake.first_seen = first_seen
        if store is not None:
            self.storer = self.reader.intake.storer = Recorder(
                self.store.path, *store[1:], self.notices, self.store.take_pipe())
            self.store.listen(self.notices, self._on_store_end, drop_rights)
            self.storer.start(drop_rights)
        # Not threading.Thread, as a ^C during its start() or join() may leave locks held or mark a live thread as
        # ended.
        self.thread = start_new_thread(self.reader.run, (drop_rights,))
        if everywhere and not listing:
            self.follower.start(drop_rights)
        return reasons

    def open_replay(self, path, flow_filter, types, rights, double speed, presentation, redactor,
                    FlowCounts counts=None) -> None:
        """Open a recording instead, and start the thread that plays it; see Player. OSError, RecordingError."""
        self.ring = Ring(_RING)
        self.batch = TakenRecords(self.ring, self.fork_guard, presentation, redactor)
        self.counts = self.batch.counts = counts
        self.notices = Notices()
        self.player = Player(path, self.ring, flow_filter, types, speed)
        self._open_epoll()
        self.thread = start_new_thread(self.player.run, (None if rights is None else rights.drop,))

    def _open_epoll(self):
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise os_error("epoll")
        self.wakeup = Wakeup()
        self.watch(self.ring.filled.fd, EPOLLIN)
        self.watch(self.wakeup.fd, EPOLLIN)

    cdef object producer(self):
        """What fills the ring: it has run(), stop(), close(), `failure` and `finished`."""
        return self.reader if self.player is None else self.player

    cdef object failure(self):
        """The error that ended the records, or None."""
        return self.producer().failure or (self.store.failure if self.store is not None else None)

    def _on_store_end(self):
        # A service manager restarts the whole program; without a store it would go on as if nothing were missing.
        if self.thread is not None:
            self.producer().stop()

    cdef int check(self) except -1:
        self.fork_guard.check("this Conntrack")
        if self.closed:
            raise ValueError("operation on closed Conntrack")
        return 0

    cdef int watch(self, int fd, uint32_t events) except -1:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = events
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise os_error("epoll")
        return 0

    def stop(self) -> None:
        """Have the reading thread end soon."""
        self.fork_guard.check("this Conntrack")
        if self.thread is not None:
            self.producer().stop()

    def close(self) -> None:
        """End the threads and close everything. If another thread is within take(), that thread closes what it uses.

        May be called again if an exception from a signal handler interrupted it.
        """
        if not self.fork_guard.here():
            self._abandon()
            return
        # The garbage collector may call this in one of the engine's own threads, which cannot wait for itself.
        if get_ident() in (self.thread, self.follower.thread if self.follower is not None else None):
            start_new_thread(self.close, ())
            return
        self.closed = True
        if self.follower is not None:
            self.follower.stop()
        if self.thread is not None:
            self.producer().stop(True)
            self.producer().finished.acquire()
            self.producer().finished.release()      # no signal handler runs between the two
        if self.recorder is not None:
            self.recorder.finish(_RECORDING_S)
        if self.store is not None and not self.finishing:
            self.finishing = True
            self._finish_store()
        if self.wakeup is not None:
            self.wakeup.notify()
        with self.lock:
            self.ended = True
            if not self.consumer_active and not self.released:
                self._release()

    def _finish_store(self):
        cdef int64_t until = monotonic_ns() + <int64_t>(_RECORDING_S * 1e9)
        if self.storer is not None:
            self.storer.finish(_RECORDING_S)
        self.store.close_pipe()
        self.stored = self.store.finish((until - monotonic_ns()) / 1e9)

    def _release(self):
        if self.batch is not None:
            self.batch.counts = None        # what is left was not taken by anybody
            self._count_undelivered()
        if self.follower is not None:
            self.follower.close()
        if self.attribution is not None:
            self.attribution.close()
        self._close_descriptors()
        self.released = True

    def _close_descriptors(self):
        if self.opener is not None:
            self.opener.close()
        if self.producer() is not None:
            self.producer().close()
        elif self.ring is not None:
            self.ring.close()
        if self.tracking is not None:
            self.tracking.close()
        if self.table_fill is not None:
            self.table_fill.close()
        if self.notices is not None:
            self.notices.close()
        if self.epoll >= 0:
            c_close(self.epoll)
        self.epoll = -1
        if self.wakeup is not None:
            self.wakeup.close()

    def _abandon(self):
        if self.released:
            return
        self.released = True
        Py_INCREF(self)      # never free it: the parent's threads may have left it half changed
        if self.follower is not None:
            self.follower.close()
        if self.attribution is not None:
            self.attribution.abandon()
        if self.recorder is not None:
            self.recorder.abandon()
        if self.storer is not None:
            self.storer.abandon()
        if self.store is not None:
            self.store.abandon()
        self._close_descriptors()

    cdef void _count_undelivered(self) noexcept nogil:
        # The reading thread has ended, so nothing is added any more.
        cdef int i
        if self.reader is not None and not self.counted:
            self.undelivered += self.reader.intake.undelivered
            self.unreported_lost += self.reader.intake.unreported_lost
            self.at_least = self.reader.intake.at_least
        self.counted = True
        if self.rows is not None and self.rows.table != NULL:
            self.undelivered += self.rows.table.rows
            self.unreported_lost += self.rows.table.lost
            self.at_least = self.at_least or self.rows.table.at_least
            self.rows.clear()
        while True:
            for i in range(self.batch.consumed, self.batch.count):
                if self.batch.records[i].kind == RECORD_LOSS:
                    self.unreported_lost += self.batch.records[i].loss.events
                    self.at_least = self.at_least or self.batch.records[i].loss.at_least
                else:
                    self.undelivered += 1
            if self.batch.fill() <= 0:
                return

    cdef int _fill_batch(self, int timeout) noexcept nogil:
        """Fill the batch and return its size.

        If the ring is empty, wait up to `timeout` ms, -1 without limit, and return 0. Return -1 if no record will ever
        come again, -2 with errno set on an error.
        """
        cdef epoll_event ready[READY]
        cdef int count = self.batch.fill()
        if count != 0 or timeout == 0 or self.closed:
            return count
        if epoll_wait(self.epoll, ready, READY, timeout) < 0 and errno != EINTR:
            return -2
        return 0

    cdef int _write_batches(self, RecordWriter writer, int *result) noexcept nogil:
        """Wait for records, write them and those that come within WRITE_MS. Return how many, or as _fill_batch().

        *result is 0, or the -errno of a failed write.
        """
        cdef int64_t until = monotonic_ns() + WRITE_MS * <int64_t>1000000
        cdef int64_t left = -1
        cdef int written = 0
        cdef int count
        if writer.is_pending():
            result[0] = writer.resume(self.batch)
            if result[0] < 0:
                return 0
        count = self._fill_batch(writer.due_ms()) or self.batch.fill()
        if count == 0 and writer.due_ms() == 0:
            result[0] = writer.put(self.batch)
        while count > 0:
            result[0] = writer.put(self.batch)
            written += count
            left = (until - monotonic_ns()) // 1000000
            if result[0] < 0 or left <= 0:
                break
            count = self._fill_batch(<int>left) or self.batch.fill()
        return written or count

    cdef int _gather(self, int64_t most, int64_t wait, bint block) noexcept nogil:
        """Gather records in `rows` until a Batch is due: 1 if one is, 0 if not yet, -1 if none will be, or -errno."""
        cdef epoll_event ready[READY]
        cdef int64_t now = monotonic_ns()
        cdef int64_t until = now + (WRITE_MS if block else GATHER_MS) * <int64_t>1000000
        cdef int64_t left = -1
        cdef int count, result
        while True:
            count = self.batch.count - self.batch.consumed or self.batch.fill()
            if count > 0:
                result = self.rows.add(self.batch, most)
                if result < 0 or self.rows.is_full(most):
                    return result or 1
            now = monotonic_ns()
            if self.rows.has_any():
                left = (self.rows.begun + wait - now + 999999) // 1000000
                if count < 0 or self.closed or left <= 0:
                    return 1
            if count < 0 or self.closed:
                return -1
            if now >= until:
                return 0
            if count == 0:
                if not block:
                    return 0
                if epoll_wait(self.epoll, ready, READY, <int>min(left, 60000)) < 0:
                    return 0 if errno == EINTR else -errno

    cdef bint _begin_taking(self) except -1:
        """Become the one consumer, and return True; False once it is closed."""
        with self.lock:
            if self.closed:
                return False
            if self.consumer_active:
                raise RuntimeError("another thread or task is already reading from this Conntrack")
            self.consumer_active = True
        return True

    cdef int _end_taking(self) except -1:
        with self.lock:
            self.consumer_active = False
            # Only once the threads have ended, as they use what is freed here.
            if self.ended and not self.released:
                self._release()
        return 0

    def begin_wait(self) -> int:
        """Become the one consumer until end_wait(). Return a descriptor that polls readable once there is something.

        Call it only when take() or gather() has just found nothing. close() leaves the descriptor open until
        end_wait(). -1, and no end_wait() is due, if it is closed already.
        """
        self.fork_guard.check("this Conntrack")
        return self.epoll if self._begin_taking() else -1

    def end_wait(self) -> None:
        """End what begin_wait() began."""
        self._end_taking()

    cdef int take(self, int timeout, RecordWriter writer=None) except -2:
        """Be the one consumer in _fill_batch(), or _write_batches() if there is a writer. -1 also once it is closed."""
        cdef int result = 0
        cdef int count
        cdef int number
        if not self._begin_taking():
            return -1
        try:
            with nogil:
                count = self._fill_batch(timeout) if writer is None else self._write_batches(writer, &result)
                number = errno
        finally:
            if self.closed:
                count = -1
            self._end_taking()
        if result < 0 and result != -EINTR:
            raise writer_error(result)
        if count == -2:
            raise OSError(number, f"waiting for flows: {os.strerror(number)}")
        return count

    cdef object gather(self, int64_t most, int64_t wait, bint block):
        """Be the one consumer, and return a Batch once it is due; None if it is not yet, False if no more will come.

        Args:
            most: rows of a batch.
            wait: ns after its first row when it is due with fewer.
            block: wait for that, up to 0.1 s or until a signal comes.

        Whatever is raised, what was gathered is in the next Batch.
        """
        cdef int state
        if self.rows is None:
            self.rows = BatchBuilder(_metadata(self.batch.presentation.identity.host))
        batch = self.rows.pop()
        if batch is not None:
            return batch
        if not self._begin_taking():
            return False
        try:
            with nogil:
                state = self._gather(most, wait, block)
                if state > 0:
                    self.rows.finish()
        finally:
            self._end_taking()
        if state == -ENOMEM:
            raise MemoryError("gathering a batch")
        if state < -1:
            raise OSError(-state, f"waiting for flows: {os.strerror(-state)}")
        return False if state < 0 else self.rows.pop()
