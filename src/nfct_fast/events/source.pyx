"""Events of one network namespace, and what is needed to make up for lost ones from its conntrack table.

After an overrun the entries whose event was lost are still in the table, most of them. The ones already reported are
told from the others by a set of fingerprints, which is held against the table from time to time, so that it never has
many more than live.
"""
cimport cython
from libc.errno cimport EINTR, ENOMEM
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from nfct_fast.events.flow cimport EVENT_NEW, flow_t
from nfct_fast.events.fingerprints cimport (
    flow_fingerprint, log_add, log_free, fingerprint_set_add, fingerprint_set_add_log, fingerprint_set_free,
    fingerprint_set_has, fingerprint_set_reserve,
)

cdef enum:
    SWEEP_AT = 1 << 20       # fingerprints more than lived at the last sweep: 8 MiB
    IDLE_S = 10
    IDLE_SWEEP_AT = 1 << 16
    PIECE = 4096             # fingerprints at a time: some 0.2 ms
    EARLY_MOST = 1 << 16     # flows of a namespace from before it was found: 14 MiB; of more it is told how many
    EARLY_PIECE = 256


@cython.final
@cython.auto_pickle(False)
cdef class Source:
    """socket: joined to its groups, with a receive buffer of the share. table: of the same namespace, None to recover nothing.

    index: the namespace's number in Attribution and in flow_t.netns; inode: the kernel's; since: CLOCK_MONOTONIC ns, before the
    socket was joined.
    """

    def __cinit__(self, NetlinkSocket socket not None, groups, ConntrackDump table, int index, inode, Share share not None,
                  int64_t since):
        self.groups = tuple(groups)
        self.share = share
        self.least = socket.rcvbuf // 2
        self.socket = socket
        self.table = table
        self.index = index
        self.inode = inode
        self.emptied = since

    def __dealloc__(self):
        log_free(&self.log)
        log_free(&self.living)
        fingerprint_set_free(&self.reported_flows)
        fingerprint_set_free(&self.recovered)
        free(self.early_flows)

    def seed(self) -> None:
        """What the table has now is known from then on. By whoever opens it, before it is read. Blocks while it reads the
        table: that takes 15 ms also where that is empty, as the kernel goes through those of all namespaces."""
        with nogil:
            self.begin_reading(SIFT_SEED)
            # At once: what is found later may be new, and its event lost.
            self.end_reading()

    def greet(self) -> None:
        """What the table has now is to be delivered: as seed()."""
        cdef int result = -1
        if self.table is None:
            return
        with nogil:
            self.begin_reading(SIFT_GREET)
            if self.table.begin() == 0:
                result = self.table.next()
                while result > 0 and not self.stopping:
                    result = self._keep(self._sift(result)) or self.table.next()
            # Of one that cannot be read, what was read is told.
            self.end_table(True)

    cdef int _keep(self, int count) noexcept nogil:
        """Keep the first `count` of table.flows; 0 or -ENOMEM."""
        cdef flow_t *grown
        cdef int room = max(256, 2 * self.early_room)
        if self.early_count + count > EARLY_MOST:
            self.surplus += self.early_count + count - EARLY_MOST
            count = EARLY_MOST - self.early_count
        if self.early_count + count > self.early_room:
            while room < self.early_count + count:
                room *= 2
            grown = <flow_t *>realloc(self.early_flows, room * sizeof(flow_t))
            if grown == NULL:
                return -ENOMEM
            self.early_flows, self.early_room = grown, room
        memcpy(self.early_flows + self.early_count, self.table.flows, count * sizeof(flow_t))
        self.early_count += count
        return 0

    def close(self) -> None:
        """Close its sockets; closing twice is harmless."""
        self.socket.close()
        # In a process that has it by fork, whoever held the lock is not there.
        if not self.closed and self.socket.mark.here():
            self.share.close(self.socket)
        self.closed = True
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
        """Events whose flows were not found again: those the kernel dropped, and at least those it could not make."""
        return max(0, <int64_t>(self.socket.dropped() + self.unmade - self.recoveries))

    @property
    def unmade(self) -> int:
        """Events that the kernel had no memory to make: at least so many. It does not count them."""
        return self.socket.unmade + self.surplus

    @property
    def foreign(self) -> int:
        """Datagrams that the kernel did not send."""
        return self.socket.foreign + (self.table.socket.foreign if self.table is not None else 0)

    cdef int grow(self, bint full) noexcept nogil:
        """A larger receive buffer, if more than half of it is used, or it was full, and as far as there may be one."""
        return self.share.grow(self.socket, full)

    cdef void rest(self, int64_t now) noexcept nogil:
        """Nothing is queued. What was grown for is over, and others may have it, after a while."""
        self.emptied = now
        if now - self.active > IDLE_S * <int64_t>1000000000:
            self.share.shrink(self.socket, self.least)

    cdef void mark_overrun(self) noexcept nogil:
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
        if self.doubtful:
            if fingerprint_set_has(&self.recovered, fingerprint):
                self.found_again(-1)
                return False
            # The table that is read meanwhile has it, too.
            if not self.settling:
                fingerprint_set_add(&self.reported_flows, fingerprint)
        # Without memory for it, it may be reported once more after an overrun.
        log_add(&self.log, fingerprint)
        return True

    cdef void found_again(self, int64_t count) noexcept nogil:
        """So many more flows were found in the table that is read."""
        if self.how == SIFT_GREET:
            self.early += count
        else:
            self.recoveries += count

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
            known = self.how == SIFT_SEED or fingerprint_set_has(&self.reported_flows, fingerprint)
            if not known and self.how == SIFT_SWEEP:
                continue        # its event is still on its way
            log_add(&self.living, fingerprint)
            # A dump may show an entry twice.
            if not known and fingerprint_set_add(&self.recovered, fingerprint) == 1:
                flows[missed] = flows[i]
                missed += 1
        return missed

    cdef void end_table(self, bint complete) noexcept nogil:
        """It was read, if `complete` to its end: then what is not in it has ended, and is forgotten. Else what was read of it
        is known as well, or what was recovered would be once more."""
        cdef uint64_t i
        fingerprint_set_free(&self.reported_flows)
        if complete:
            self.swept = self.living.count
            for i in range(self.noted, self.log.count):
                log_add(&self.living, self.log.entries[i])
            log_free(&self.log)
            self.log = self.living
            memset(&self.living, 0, sizeof(self.living))
        else:
            for i in range(self.living.count):
                log_add(&self.log, self.living.entries[i])
            log_free(&self.living)

    cdef void end_doubt(self) noexcept nogil:
        """All events that were queued during the recovery have been read."""
        cdef uint64_t known
        cdef uint64_t found
        self.doubtful = self.settling = False
        fingerprint_set_free(&self.recovered)
        self.socket.count_lost()
        known = self.socket.lost + self.socket.unmade + self.surplus
        found = max(known, self.recoveries + self.reported) - known     # more than can have been lost
        self.reported -= min(found, self.hopeful)
        self.surplus += found - min(found, self.hopeful)
        self.hopeful -= min(found, self.hopeful)

    cdef void begin_reading(self, sift_t how) noexcept nogil:
        """Read the table from now on, a piece with each read_on(): in one, a million entries would take half a second, and
        somebody else's flows would wait for it."""
        self.how = how
        self.reading = self.table is not None
        self.asked = self.due = False
        self.noted = 0
        if how == SIFT_RECOVER or how == SIFT_GREET:
            self.overrun = False
            self.doubtful = self.reading
            self.began = self.unsure
        # Where there is no room for the set, read_on() says so.
        if how != SIFT_SEED:
            fingerprint_set_reserve(&self.reported_flows, self.log.count)

    cdef int read_on(self) noexcept nogil:
        """One more piece, while `reading`: 1, 0 at the end, or -errno, and then what was known stays known. self.missed:
        what is to be delivered before the next."""
        cdef int result
        self.missed = 0
        if self.how == SIFT_GREET:
            return self._greet_on()
        result = -EINTR if self.stopping else self._read_on()
        if result <= 0:
            self.reading = False
            self.partial = result < 0
            self.settling = self.doubtful
            self.end_table(result == 0)
        return result

    cdef int _greet_on(self) noexcept nogil:
        self.found = self.early_flows + self.early_next
        self.missed = min(<int>EARLY_PIECE, self.early_count - self.early_next)
        self.early_next += self.missed
        if self.missed == 0:
            free(self.early_flows)
            self.early_flows = NULL
            self.reading = False
            self.settling = True
        return self.reading

    cdef void end_reading(self) noexcept nogil:
        """All that is left of it, of which nothing is to be delivered."""
        while self.reading:
            self.read_on()

    cdef int _read_on(self) noexcept nogil:
        cdef uint64_t end = min(self.log.count, self.noted + PIECE) if self.how != SIFT_SEED else 0
        cdef int result
        if self.asked:
            result = self.table.next()
            if result > 0:
                self.missed = self._sift(result)
                self.found = self.table.flows
            return min(result, 1)
        result = fingerprint_set_add_log(&self.reported_flows, &self.log, self.noted, end)
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

    cdef void count(self) noexcept nogil:
        """What is lost until now is to be told of next, but for what is recovered."""
        self.socket.count_lost()
        self.missing_unmade = self.socket.unmade
        self.missing = self.socket.lost + self.missing_unmade

    cdef uint64_t take_unreported(self, bint hopeful) noexcept nogil:
        """Of the lost events those that nothing was said of yet; they count as told. hopeful: they may yet be found."""
        cdef uint64_t gone = self.recoveries + self.reported
        cdef uint64_t result = max(gone, self.missing + self.surplus) - gone
        self.reported += result
        if hopeful:
            self.hopeful += result
        self.reported_recovered = self.recoveries
        self.reported_unmade = self.missing_unmade + self.surplus
        return result
