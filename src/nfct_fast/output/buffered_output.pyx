"""One of several outputs: a bounded buffer and a thread that empties it, so that a slow one delays nobody else."""
cimport cython
from libc.errno cimport EINTR, ETIMEDOUT
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock
from sys_socket cimport POLLIN, poll, pollfd
from nfct_fast.kernel.clock cimport monotonic_ns, realtime_ns
from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.output.target cimport entry_t
from nfct_fast.records.record cimport RECORD_LOSS, record_t
from nfct_fast.text.text_buffer cimport buffer_free

import os
from _thread import allocate_lock, start_new_thread

cdef enum:
    BLOCK = 8 << 20              # bytes of each of the two blocks: 25,000 flows as text, 6,000 as JSON
    HALF = BLOCK // 2
    ENTRIES = BLOCK // 64        # entries of a block
    GRACE_MS = 500               # as of Sink: how long delivery may take once it is asked to end
    QUIET_S = 60                 # the shortest time between two notices of a failure
    AGAIN = 1                    # results of _write_next(): there may be more,
    OVER = 2                     # there will not,
    REOPEN = 3                   # reopen() was called

_LAST_S = 0.3                    # how long finish() waits beyond GRACE_MS until the thread has seen that it is over


@cython.final
@cython.auto_pickle(False)
cdef class BufferedOutput:
    """Takes formatted entries and delivers them to a target.

    Nobody waits for it: flows for which there is no room are left out and counted, and the loss is reported among the
    entries, if the format has such reports, when there is room again.

    Args:
        formatter: What the entries are made by.
        target: Called with `ending.fileno()`, which is readable once delivery has to end; returns the Target. OSError.
        notices: Where sentences for the operator go.
    """

    def __cinit__(self, Formatter formatter not None, target, notices):
        cdef int i
        self.formatter, self.notices = formatter, notices
        if not mutex_make(&self.mutex):
            raise MemoryError("mutex")
        for i in range(2):
            # Not touched before it is needed, so that it takes no memory until then.
            self.blocks[i].data = <char *>malloc(BLOCK)
            self.blocks[i].entries = <entry_t *>malloc(ENTRIES * sizeof(entry_t))
            if self.blocks[i].data == NULL or self.blocks[i].entries == NULL:
                raise MemoryError("output")
        self.wakeup, self.ending = Wakeup(), Wakeup()
        self.finished = allocate_lock()
        self.target = target(self.ending.fileno())

    def __dealloc__(self):
        cdef int i
        for i in range(2):
            free(self.blocks[i].data)
            free(self.blocks[i].entries)
        buffer_free(&self.line)
        pthread_mutex_destroy(&self.mutex)

    @property
    def name(self) -> str:
        """The name of the target."""
        return self.target.name

    @property
    def lost(self) -> int:
        """Flows that were not delivered, so far; after finish(), also those that the target has not taken by then."""
        return self.left_out + self.target.refused

    @property
    def is_idle(self) -> bool:
        """Whether all that was added is delivered, or never will be."""
        pthread_mutex_lock(&self.mutex)
        idle = self.dead or self.blocks[self.filling].count == 0 and self.at == self.blocks[self.filling ^ 1].count
        pthread_mutex_unlock(&self.mutex)
        return idle

    @property
    def is_dead(self) -> bool:
        """Whether the target will never take anything again."""
        return self.dead

    def put(self, bytes text not None) -> None:
        """Add text that is no flow, such as a header."""
        cdef entry_t entry
        entry.size, entry.flows = <uint32_t>len(text), 0
        if text:
            pthread_mutex_lock(&self.mutex)
            self._add(text, &entry, 1)
            pthread_mutex_unlock(&self.mutex)

    def start(self) -> None:
        """Start the thread, with the rights of the calling one."""
        self.finished.acquire()
        self.started = True
        start_new_thread(self._run, ())

    def reopen(self) -> None:
        """Have the thread open the target again, after what is being written."""
        self.reopening = True
        self.wakeup.notify()

    def end(self) -> None:
        """Have the thread end when it has delivered what was added, or in half a second. Nothing is added any more."""
        self.deadline = monotonic_ns() + GRACE_MS * <int64_t>1000000
        self.stopping = True
        self.ending.notify()
        self.wakeup.notify()

    def finish(self) -> None:
        """Wait until the thread has ended, 0.8 seconds after end() at most, and count what it has not delivered."""
        cdef double left = (self.deadline - monotonic_ns()) / 1e9 + _LAST_S
        if self.started:
            self.finished.acquire(timeout=max(0., left))
        pthread_mutex_lock(&self.mutex)
        self.left_out += self._unwritten()
        self.dead = True
        pthread_mutex_unlock(&self.mutex)

    def report(self) -> str | None:
        """Return a sentence on how many flows were not delivered, with the reason; None if all were."""
        if not self.lost:
            return None
        return f"{self.lost} flows not written to {self.target.name}: {self.reason or 'it takes them too slowly'}"

    cdef uint64_t _unwritten(self) noexcept nogil:
        cdef uint64_t flows = 0
        cdef block_t *block
        cdef size_t i
        cdef int which
        for which in range(2):
            block = &self.blocks[which]
            for i in range(0 if which == self.filling else self.at, block.count):
                flows += block.entries[i].flows
        return flows

    cdef void add(self, const char *data, const entry_t *entries, size_t count) noexcept nogil:
        cdef bint wake
        pthread_mutex_lock(&self.mutex)
        wake = self.blocks[self.filling].count == 0
        self._add(data, entries, count)
        pthread_mutex_unlock(&self.mutex)
        if wake:
            self.wakeup.notify()
        if self.next is not None:
            self.next.add(data, entries, count)

    cdef void _add(self, const char *data, const entry_t *entries, size_t count) noexcept nogil:
        cdef block_t *block = &self.blocks[self.filling]
        cdef size_t length = 0
        cdef size_t size
        cdef size_t fits = 0
        cdef size_t i
        if self.missing and not self.dead and block.length <= HALF:
            self._report_missing(block)
        # While some are missing, all are, until there is room for many: not one here and one there.
        if not self.missing and not self.dead:
            while fits < count and block.count + fits < ENTRIES:
                size = entries[fits].size
                if block.length + length + size > BLOCK:
                    break
                length += size
                fits += 1
        memcpy(block.data + block.length, data, length)
        memcpy(block.entries + block.count, entries, fits * sizeof(entry_t))
        block.length += length
        block.count += fits
        for i in range(fits, count):
            self.missing += entries[i].flows
            self.left_out += entries[i].flows

    cdef void _report_missing(self, block_t *block) noexcept nogil:
        cdef record_t record
        memset(&record, 0, sizeof(record))
        record.kind = RECORD_LOSS
        record.loss.time = realtime_ns()
        record.loss.events = self.missing
        self.line.length = 0
        self.formatter.put(&self.line, &record)
        if not self.line.failed and self.line.length <= HALF and block.count < ENTRIES:
            memcpy(block.data + block.length, self.line.data, self.line.length)
            if self.line.length:
                block.entries[block.count].size, block.entries[block.count].flows = <uint32_t>self.line.length, 0
                block.count += 1
                block.length += self.line.length
            self.missing = 0
        self.line.failed = False

    cdef void leave_out(self, uint64_t flows) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        self.missing += flows
        self.left_out += flows
        pthread_mutex_unlock(&self.mutex)
        if self.next is not None:
            self.next.leave_out(flows)

    cdef bint has_room(self) noexcept nogil:
        cdef block_t *block
        cdef bint room
        pthread_mutex_lock(&self.mutex)
        block = &self.blocks[self.filling]
        room = self.dead or (block.length <= HALF and block.count <= ENTRIES // 2)
        pthread_mutex_unlock(&self.mutex)
        return room and (self.next is None or self.next.has_room())

    def _run(self):
        cdef int result = AGAIN
        try:
            while result != OVER:
                with nogil:
                    result = self._write_next()
                if result == REOPEN:
                    self._reopen()
                elif result < 0:
                    result = self._recover(-result)
        finally:
            self.finished.release()

    def _reopen(self):
        self.reopening = False
        try:
            self.target.reopen()
        except OSError as error:
            self.notices.add(f"{self.target.name} is not reopened: {error.strerror or error}")

    def _recover(self, number):
        """After a failure, do what can be done and wait. Return AGAIN or OVER."""
        cdef pollfd ready
        cdef int ms
        first = not self.failing
        self.failing = self.failing or 1
        self.reason = os.strerror(number)
        again = self.target.recover(number)
        if again is None:
            self.notices.add(f"nothing more is written to {self.target.name}: {self.reason}")
            pthread_mutex_lock(&self.mutex)
            self.dead = True
            pthread_mutex_unlock(&self.mutex)
            return OVER
        if first and again == 0:
            return AGAIN
        if self.failing == 1 and monotonic_ns() >= self.quiet_until:
            self.failing = 2
            self.quiet_until = monotonic_ns() + QUIET_S * <int64_t>1000000000
            self.notices.add(f"{self.target.name}: {self.reason}; it is tried again")
        if self.stopping and monotonic_ns() >= self.deadline:
            return OVER
        ms = <int>(1000 * (again or 0.25))
        ready.fd, ready.events, ready.revents = self.ending.fd, POLLIN, 0
        with nogil:
            if poll(&ready, 1, ms) > 0:
                poll(NULL, 0, 50)       # it has to end soon, and is tried a few times more
        return AGAIN

    cdef void _advance(self, size_t entries) noexcept nogil:
        cdef block_t *block = &self.blocks[self.filling ^ 1]
        cdef size_t i
        pthread_mutex_lock(&self.mutex)
        for i in range(self.at, self.at + entries):
            self.offset += block.entries[i].size
        self.at += entries
        pthread_mutex_unlock(&self.mutex)

    cdef int _write_next(self) noexcept nogil:
        """Deliver a block, or wait for one. AGAIN, OVER, REOPEN, or -errno if it cannot be delivered now."""
        cdef bint last = self.stopping
        cdef block_t *block
        cdef pollfd ready
        cdef int result
        if self.reopening:
            return REOPEN
        pthread_mutex_lock(&self.mutex)
        if self.at == self.blocks[self.filling ^ 1].count:
            self.filling ^= 1
            self.blocks[self.filling].length = self.blocks[self.filling].count = 0
            self.at = self.offset = 0
        block = &self.blocks[self.filling ^ 1]
        pthread_mutex_unlock(&self.mutex)
        if block.count == 0:
            if last:
                return OVER
            ready.fd, ready.events, ready.revents = self.wakeup.fd, POLLIN, 0
            if poll(&ready, 1, -1) == 1:
                self.wakeup.drain()
            return AGAIN
        result = self.target.put(block.data + self.offset, block.entries + self.at, block.count - self.at)
        self._advance(self.target.done)
        if self.target.done:
            self.failing = 0
        if result == -ETIMEDOUT:
            return OVER
        return AGAIN if result == 0 or result == -EINTR else result
