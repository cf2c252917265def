"""Events of one network namespace, and what is needed to make up for lost ones from its conntrack table.

After an overrun the entries whose event was lost are still in the table, most of them. The ones already reported are
told from the others by a set of fingerprints, which is held against the table from time to time, so that it never has
many more than live.
"""
cimport cython
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.string cimport memset
from .flow cimport EVENT_NEW, flow_t
from .seen cimport (flow_fingerprint, log_add, log_free, seen_add, seen_add_log, seen_free, seen_has,
                    seen_reserve)

cdef enum:
    SWEEP_AT = 1 << 20       # fingerprints more than lived at the last sweep: 8 MiB
    IDLE_S = 10
    IDLE_SWEEP_AT = 1 << 16
    PIECE = 4096             # fingerprints at a time: some 0.2 ms


@cython.final
@cython.auto_pickle(False)
cdef class Source:
    """socket: joined to its groups. table: of the same namespace, None to recover nothing.

    index: the namespace's number in Attribution and in flow_t.netns; inode: the kernel's.
    """

    def __cinit__(self, NetlinkSocket socket not None, groups, Table table, int index, inode):
        self.groups = tuple(groups)
        self.socket = socket
        self.table = table
        self.index = index
        self.inode = inode

    def __dealloc__(self):
        log_free(&self.log)
        log_free(&self.living)
        seen_free(&self.reported)
        seen_free(&self.recovered)

    def close(self) -> None:
        """Close its sockets; closing twice is harmless."""
        self.socket.close()
        if self.table is not None:
            self.table.socket.close()

    def stop(self) -> None:
        """Have the reading of the table end: of a million entries it takes seconds. From any thread."""
        self.stopping = True

    def sweep(self) -> None:
        """Have what was reported held against the table within a second, not only once it is much. From any thread."""
        self.due = True

    def leave(self) -> None:
        """No further events are queued."""
        for group in self.groups:
            self.socket.leave(group)

    @property
    def lost(self) -> int:
        """Events the kernel dropped and whose flows were not found again, as far as it was noticed."""
        return max(0, <int64_t>(self.socket.lost - self.recoveries))

    cdef void lose(self) noexcept nogil:
        """Events were lost, since all was received last."""
        if not self.overrun:
            self.overrun = True
            self.unsure = self.emptied

    cdef bint admit(self, const flow_t *flow) noexcept nogil:
        """Whether an event is to be delivered: not if its flow was recovered while the event was still queued."""
        cdef uint64_t fingerprint
        if self.table is None or flow.type != EVENT_NEW:
            return True
        fingerprint = flow_fingerprint(flow)
        if self.doubtful and seen_has(&self.recovered, fingerprint):
            self.recoveries -= 1
            return False
        # Without memory for it, it may be reported once more after an overrun.
        log_add(&self.log, fingerprint)
        return True

    cdef int _sift(self, int count) noexcept nogil:
        """Take note of the first `count` of table.flows and move the missed ones to their front: how many."""
        cdef flow_t *flows = self.table.flows
        cdef uint64_t fingerprint
        cdef int missed = 0
        cdef int i
        cdef bint known
        for i in range(count):
            flows[i].netns = <uint16_t>self.index
            fingerprint = flow_fingerprint(&flows[i])
            known = self.how == SIFT_SEED or seen_has(&self.reported, fingerprint)
            if not known and self.how == SIFT_SWEEP:
                continue        # its event is still on its way
            log_add(&self.living, fingerprint)
            # A dump may show an entry twice.
            if not known and seen_add(&self.recovered, fingerprint) == 1:
                flows[missed] = flows[i]
                missed += 1
        return missed

    cdef int begin_table(self) noexcept nogil:
        """Begin to look in the table for missed flows; as next_table. Not while `reading`."""
        cdef int result
        self.how = SIFT_RECOVER
        self.doubtful = True
        self.noted = self.log.count
        result = seen_reserve(&self.reported, self.noted)
        if result == 0:
            result = seen_add_log(&self.reported, &self.log, 0, self.noted)
        if result == 0:
            result = self.table.begin()
        return result if result < 0 else self.next_table()

    cdef int next_table(self) noexcept nogil:
        """Read on until there are missed flows, the first in table.flows: how many, 0 at the end, or -errno."""
        cdef int count
        cdef int missed
        while not self.stopping:
            count = self.table.next()
            if count <= 0:
                return count
            missed = self._sift(count)
            if missed:
                return missed
        return -EINTR

    cdef void end_table(self, bint complete) noexcept nogil:
        """It was read, if `complete` to its end: then what is not in it has ended, and is forgotten."""
        cdef uint64_t i
        seen_free(&self.reported)
        if complete:
            self.swept = self.living.count
            for i in range(self.noted, self.log.count):
                log_add(&self.living, self.log.entries[i])
            log_free(&self.log)
            self.log = self.living
            memset(&self.living, 0, sizeof(self.living))
        else:
            log_free(&self.living)

    cdef void end_doubt(self) noexcept nogil:
        """All events that were queued during the recovery have been read."""
        self.doubtful = False
        seen_free(&self.recovered)

    cdef void begin_reading(self, sift_t how) noexcept nogil:
        """Seed or sweep from now on, a piece with each read_on(): in one, a million entries would take half a second."""
        self.how = how
        self.reading = self.table is not None
        self.asked = self.due = False
        self.noted = 0
        # Where there is no room for the set, read_on() says so.
        if how == SIFT_SWEEP:
            seen_reserve(&self.reported, self.log.count)

    cdef int read_on(self) noexcept nogil:
        """One more piece, while `reading`: 1, 0 at the end, or -errno, and then what was known stays known."""
        cdef int result = -EINTR if self.stopping else self._read_on()
        if result <= 0:
            self.reading = False
            self.end_table(result == 0)
        return result

    cdef void end_reading(self) noexcept nogil:
        """All that is left of it."""
        while self.reading:
            self.read_on()

    cdef int _read_on(self) noexcept nogil:
        cdef uint64_t end = min(self.log.count, self.noted + PIECE) if self.how == SIFT_SWEEP else 0
        cdef int result
        if self.asked:
            result = self.table.next()
            if result > 0:
                self._sift(result)
            return min(result, 1)
        result = seen_add_log(&self.reported, &self.log, self.noted, end)
        self.noted = end
        if result == 0 and (end == self.log.count or self.how == SIFT_SEED):
            self.asked = True
            result = self.table.begin()
        return result or 1

    cdef bint wants_sweep(self, int64_t now) noexcept nogil:
        """Whether so many fingerprints have come that most will be of ended entries."""
        if self.table is None or self.doubtful or self.reading:
            return False
        if self.due or self.log.count > 2 * self.swept + SWEEP_AT:
            return True
        return now - self.active > IDLE_S * <int64_t>1000000000 and self.log.count > self.swept + IDLE_SWEEP_AT

    cdef uint64_t untold(self, uint64_t dropped) noexcept nogil:
        """Of the first `dropped` lost events those that nothing was said of yet; they count as told."""
        cdef uint64_t gone = self.recoveries + self.told
        cdef uint64_t result = dropped - gone if dropped > gone else 0
        self.told += result
        self.told_recovered = self.recoveries
        return result
