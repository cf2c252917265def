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
    fingerprint_log_add, fingerprint_log_free, fingerprint_set_add, fingerprint_set_add_log, fingerprint_set_free,
    fingerprint_set_has, fingerprint_set_reserve, flow_fingerprint)

cdef enum:
    SWEEP_EXCESS = 1 << 20       # fingerprints more than lived at the last sweep: 8 MiB
    IDLE_S = 10
    IDLE_SWEEP_EXCESS = 1 << 16
    INDEX_PIECE = 4096             # fingerprints at a time: some 0.2 ms
    EXISTING_MAX = 1 << 16     # flows of a namespace from before it was found: 14 MiB; of more it is told how many
    EXISTING_PIECE = 256


@cython.final
@cython.auto_pickle(False)
cdef class Source:
    """socket: joined to its groups, with a receive buffer of the share. table: of the same namespace, None to recover nothing.

    index: the namespace's number in Attribution and in flow_t.netns; inode: the kernel's; since: CLOCK_MONOTONIC ns, before the
    socket was joined.
    """

    def __cinit__(self, NetlinkSocket socket not None, groups, ConntrackDump dump, int index, inode, Share share not None,
                  int64_t since):
        self.groups = tuple(groups)
        self.share = share
        self.initial_rcvbuf = socket.rcvbuf // 2
        self.socket = socket
        self.dump = dump
        self.index = index
        self.inode = inode
        self.drained_at = since

    def __dealloc__(self):
        fingerprint_log_free(&self.log)
        fingerprint_log_free(&self.live_log)
        fingerprint_set_free(&self.reported_flows)
        fingerprint_set_free(&self.recovered_flows)
        free(self.existing_flows)

    def seed(self) -> None:
        """What the table has now is known from then on. By whoever opens it, before it is read. Blocks while it reads the
        table: that takes 15 ms also where that is empty, as the kernel goes through those of all namespaces."""
        with nogil:
            self.begin_dump(PURPOSE_SEED)
            # At once: what is found later may be new, and its event lost.
            self.run_dump()

    def load_existing(self) -> None:
        """What the table has now is to be delivered: as seed()."""
        cdef int result = -1
        if self.dump is None:
            return
        with nogil:
            self.begin_dump(PURPOSE_EXISTING)
            if self.dump.begin() == 0:
                result = self.dump.next()
                while result > 0 and not self.stopping:
                    result = self._keep_existing(self._select_missed(result)) or self.dump.next()
            # Of one that cannot be read, what was read is told.
            self._finish_dump(True)

    cdef int _keep_existing(self, int count) noexcept nogil:
        """Keep the first `count` of table.flows; 0 or -ENOMEM."""
        cdef flow_t *grown
        cdef int room = max(256, 2 * self.existing_flow_capacity)
        if self.existing_flow_count + count > EXISTING_MAX:
            self.unaccounted += self.existing_flow_count + count - EXISTING_MAX
            count = EXISTING_MAX - self.existing_flow_count
        if self.existing_flow_count + count > self.existing_flow_capacity:
            while room < self.existing_flow_count + count:
                room *= 2
            grown = <flow_t *>realloc(self.existing_flows, room * sizeof(flow_t))
            if grown == NULL:
                return -ENOMEM
            self.existing_flows, self.existing_flow_capacity = grown, room
        memcpy(self.existing_flows + self.existing_flow_count, self.dump.flows, count * sizeof(flow_t))
        self.existing_flow_count += count
        return 0

    def close(self) -> None:
        """Close its sockets; closing twice is harmless."""
        self.socket.close()
        # In a process that has it by fork, whoever held the lock is not there.
        if not self.closed and self.socket.mark.here():
            self.share.close(self.socket)
        self.closed = True
        if self.dump is not None:
            self.dump.socket.close()

    def stop(self) -> None:
        """Have the reading of the table end: of a million entries it takes seconds. From any thread."""
        self.stopping = True

    def request_sweep(self) -> None:
        """Have what was reported held against the table within a second, not only once it is much. From any thread."""
        self.sweep_requested = True

    def leave(self) -> None:
        """No further events are queued."""
        for group in self.groups:
            self.socket.leave(group)

    @property
    def lost(self) -> int:
        """Events whose flows were not found again: those the kernel dropped, and at least those it could not make."""
        return max(0, <int64_t>(self.socket.dropped() + self.unallocated - self.recovered_count))

    @property
    def unallocated(self) -> int:
        """Events that the kernel had no memory to make: at least so many. It does not count them."""
        return self.socket.unmade + self.unaccounted

    @property
    def foreign(self) -> int:
        """Datagrams that the kernel did not send."""
        return self.socket.foreign + (self.dump.socket.foreign if self.dump is not None else 0)

    cdef int grow(self, bint full) noexcept nogil:
        """A larger receive buffer, if more than half of it is used, or it was full, and as far as there may be one."""
        return self.share.grow(self.socket, full)

    cdef void note_idle(self, int64_t now) noexcept nogil:
        """Nothing is queued. What was grown for is over, and others may have it, after a while."""
        self.drained_at = now
        if now - self.last_event_at > IDLE_S * <int64_t>1000000000:
            self.share.shrink(self.socket, self.initial_rcvbuf)

    cdef void mark_overrun(self) noexcept nogil:
        """Events were lost, since all was received last."""
        if not self.overrun:
            self.overrun = True
            self.loss_started_at = self.drained_at

    cdef bint admit(self, const flow_t *flow) noexcept nogil:
        """Whether an event is to be delivered: not if its flow was recovered while the event was still queued."""
        cdef uint64_t fingerprint
        if self.dump is None or flow.type != EVENT_NEW:
            return True
        fingerprint = flow_fingerprint(flow)
        if self.deduplicating:
            if fingerprint_set_has(&self.recovered_flows, fingerprint):
                self.add_recovered(-1)
                return False
            # The table that is read meanwhile has it, too.
            if not self.settle_pending:
                fingerprint_set_add(&self.reported_flows, fingerprint)
        # Without memory for it, it may be reported once more after an overrun.
        fingerprint_log_add(&self.log, fingerprint)
        return True

    cdef void add_recovered(self, int64_t count) noexcept nogil:
        """So many more flows were found in the table that is read."""
        if self.purpose == PURPOSE_EXISTING:
            self.existing_count += count
        else:
            self.recovered_count += count

    cdef int _select_missed(self, int count) noexcept nogil:
        """Take note of the first `count` of table.flows and move the missed ones to their front: how many."""
        cdef flow_t *flows = self.dump.flows
        cdef uint64_t fingerprint
        cdef int missed = 0
        cdef int i
        cdef bint known
        for i in range(count):
            flows[i].netns = <uint16_t>self.index
            fingerprint = flow_fingerprint(&flows[i])
            known = self.purpose == PURPOSE_SEED or fingerprint_set_has(&self.reported_flows, fingerprint)
            if not known and self.purpose == PURPOSE_SWEEP:
                continue        # its event is still on its way
            fingerprint_log_add(&self.live_log, fingerprint)
            # A dump may show an entry twice.
            if not known and fingerprint_set_add(&self.recovered_flows, fingerprint) == 1:
                flows[missed] = flows[i]
                missed += 1
        return missed

    cdef void _finish_dump(self, bint complete) noexcept nogil:
        """It was read, if `complete` to its end: then what is not in it has ended, and is forgotten. Else what was read of it
        is known as well, or what was recovered would be once more."""
        cdef uint64_t i
        fingerprint_set_free(&self.reported_flows)
        if complete:
            self.live_at_sweep = self.live_log.count
            for i in range(self.log_indexed, self.log.count):
                fingerprint_log_add(&self.live_log, self.log.entries[i])
            fingerprint_log_free(&self.log)
            self.log = self.live_log
            memset(&self.live_log, 0, sizeof(self.live_log))
        else:
            for i in range(self.live_log.count):
                fingerprint_log_add(&self.log, self.live_log.entries[i])
            fingerprint_log_free(&self.live_log)

    cdef void finish_deduplicating(self) noexcept nogil:
        """All events that were queued during the recovery have been read."""
        cdef uint64_t known
        cdef uint64_t found
        self.deduplicating = self.settle_pending = False
        fingerprint_set_free(&self.recovered_flows)
        self.socket.count_lost()
        known = self.socket.lost + self.socket.unmade + self.unaccounted
        found = max(known, self.recovered_count + self.reported_lost) - known     # more than can have been lost
        self.reported_lost -= min(found, self.tentative)
        self.unaccounted += found - min(found, self.tentative)
        self.tentative -= min(found, self.tentative)

    cdef void begin_dump(self, purpose_t purpose) noexcept nogil:
        """Read the table from now on, a piece with each read_on(): in one, a million entries would take half a second, and
        somebody else's flows would wait for it."""
        self.purpose = purpose
        self.dump_in_progress = self.dump is not None
        self.dump_requested = self.sweep_requested = False
        self.log_indexed = 0
        if purpose == PURPOSE_RECOVER or purpose == PURPOSE_EXISTING:
            self.overrun = False
            self.deduplicating = self.dump_in_progress
            self.recovery_since = self.loss_started_at
        # Where there is no room for the set, read_on() says so.
        if purpose != PURPOSE_SEED:
            fingerprint_set_reserve(&self.reported_flows, self.log.count)

    cdef int advance_dump(self) noexcept nogil:
        """One more piece, while `reading`: 1, 0 at the end, or -errno, and then what was known stays known. self.missed:
        what is to be delivered before the next."""
        cdef int result
        self.missed_count = 0
        if self.purpose == PURPOSE_EXISTING:
            return self._advance_existing()
        result = -EINTR if self.stopping else self._advance_dump()
        if result <= 0:
            self.dump_in_progress = False
            self.dump_incomplete = result < 0
            self.settle_pending = self.deduplicating
            self._finish_dump(result == 0)
        return result

    cdef int _advance_existing(self) noexcept nogil:
        self.missed_flows = self.existing_flows + self.existing_flows_delivered
        self.missed_count = min(<int>EXISTING_PIECE, self.existing_flow_count - self.existing_flows_delivered)
        self.existing_flows_delivered += self.missed_count
        if self.missed_count == 0:
            free(self.existing_flows)
            self.existing_flows = NULL
            self.dump_in_progress = False
            self.settle_pending = True
        return self.dump_in_progress

    cdef void run_dump(self) noexcept nogil:
        """All that is left of it, of which nothing is to be delivered."""
        while self.dump_in_progress:
            self.advance_dump()

    cdef int _advance_dump(self) noexcept nogil:
        cdef uint64_t end = min(self.log.count, self.log_indexed + INDEX_PIECE) if self.purpose != PURPOSE_SEED else 0
        cdef int result
        if self.dump_requested:
            result = self.dump.next()
            if result > 0:
                self.missed_count = self._select_missed(result)
                self.missed_flows = self.dump.flows
            return min(result, 1)
        result = fingerprint_set_add_log(&self.reported_flows, &self.log, self.log_indexed, end)
        self.log_indexed = end
        if result == 0 and (end == self.log.count or self.purpose == PURPOSE_SEED):
            self.dump_requested = True
            result = self.dump.begin()
        return result or 1

    cdef bint wants_sweep(self, int64_t now) noexcept nogil:
        """Whether so many fingerprints have come that most will be of ended entries."""
        if self.dump is None or self.deduplicating or self.dump_in_progress:
            return False
        if self.sweep_requested or self.log.count > 2 * self.live_at_sweep + SWEEP_EXCESS:
            return True
        return now - self.last_event_at > IDLE_S * <int64_t>1000000000 and self.log.count > self.live_at_sweep + IDLE_SWEEP_EXCESS

    cdef void count_losses(self) noexcept nogil:
        """What is lost until now is to be told of next, but for what is recovered."""
        self.socket.count_lost()
        self.unallocated_counted = self.socket.unmade
        self.losses_counted = self.socket.lost + self.unallocated_counted

    cdef uint64_t take_unreported(self, bint tentative) noexcept nogil:
        """Of the lost events those that nothing was said of yet; they count as told. hopeful: they may yet be found."""
        cdef uint64_t gone = self.recovered_count + self.reported_lost
        cdef uint64_t result = max(gone, self.losses_counted + self.unaccounted) - gone
        self.reported_lost += result
        if tentative:
            self.tentative += result
        self.reported_recovered = self.recovered_count
        self.reported_unallocated = self.unallocated_counted + self.unaccounted
        return result
