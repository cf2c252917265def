"""The conntrack events of one network namespace, and the recovery of lost ones from its conntrack table.

After an overrun, most flows whose event was lost are still in the table. To distinguish them from flows that were
reported, the source keeps a log of fingerprints of all flows it has delivered. From time to time a sweep compares the
log with the table and drops the flows that have ended, so that the log never grows far beyond the table.
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
    SWEEP_EXCESS = 1 << 20       # fingerprints by which the log may exceed twice the table before it is swept: 8 MiB
    IDLE_S = 10                  # seconds without events after which a source is idle
    IDLE_SWEEP_EXCESS = 1 << 16  # as SWEEP_EXCESS, for an idle source
    INDEX_PIECE = 4096           # fingerprints indexed in one go: about 0.2 ms
    EXISTING_MAX = 1 << 16       # existing flows kept for delivery: 14 MiB; further ones are only counted
    EXISTING_PIECE = 256         # existing flows handed out in one go


@cython.final
@cython.auto_pickle(False)
cdef class Source:
    """One namespace's event socket, with the state that recovery needs. The reading thread owns it.

    Args:
        socket: The event socket, which has joined its groups and has a receive buffer from `share`.
        groups: The multicast groups that it has joined.
        dump: The conntrack table of the same namespace; None to recover nothing.
        index: The namespace's number in flow_t.netns.
        inode: The namespace's inode.
        share: The Share that the socket's receive buffer is taken from.
        since: CLOCK_MONOTONIC ns before the socket joined its groups.
    """

    def __cinit__(self, NetlinkSocket socket not None, groups, ConntrackDump dump, int index, inode,
                  Share share not None, int64_t since):
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
        fingerprint_set_free(&self.ended_flows)
        free(self.existing_flows)

    def seed(self) -> None:
        """Note which flows exist, so that recovery never reports them. Call before adding the source to the reader.

        Blocks while it dumps the table. Even a short table takes 15 ms, because the kernel walks the hash buckets of
        all namespaces.
        """
        with nogil:
            self.begin_dump(PURPOSE_SEED)
            # All at once: a flow found later may be a new one whose event was lost.
            self.run_dump()

    def load_existing(self) -> None:
        """Read the flows that exist into memory, for the reading thread to deliver. Otherwise as seed()."""
        cdef int result = -1
        if self.dump is None:
            return
        with nogil:
            self.begin_dump(PURPOSE_EXISTING)
            if self.dump.begin() == 0:
                result = self.dump.next()
                while result > 0 and not self.stopping:
                    result = self._keep_existing(self._select_missed(result)) or self.dump.next()
            # Even if the dump fails, the flows read so far are delivered.
            self._finish_dump(True)

    def list_entries(self) -> None:
        """Have the reading thread deliver the whole table. Call before the source is given to it."""
        self.begin_dump(PURPOSE_LIST)
        self.recovery_since = 1      # ns of CLOCK_MONOTONIC: entries may be as old as can be

    cdef int _keep_existing(self, int count) noexcept nogil:
        """Copy the first `count` of dump.flows to existing_flows; 0 or -ENOMEM."""
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
        """Close both sockets; closing twice is harmless."""
        self.socket.close()
        # A forked child must not take the share's lock, as a thread that held it does not exist in the child.
        if not self.closed and self.socket.fork_guard.here():
            self.share.close(self.socket)
        self.closed = True
        if self.dump is not None:
            self.dump.socket.close()

    def stop(self) -> None:
        """Cut a running dump short, since it may take seconds for a million entries. Any thread may call this."""
        self.stopping = True

    def request_sweep(self) -> None:
        """Have a sweep done within a second, however short the log is. Any thread may call this."""
        self.sweep_requested = True

    def leave(self) -> None:
        """Leave the multicast groups: the kernel queues no further events. OSError."""
        for group in self.groups:
            self.socket.leave(group)

    def retire(self) -> None:
        """Leave the groups, and have the reading thread release this source once its queue is empty. OSError."""
        self.leave()
        self.retiring = True

    @property
    def lost(self) -> int:
        """Events lost and not recovered: those the kernel dropped, plus at least those it could not allocate."""
        return max(0, <int64_t>(self.socket.dropped() + self.unallocated - self.recovered_count))

    @property
    def unallocated(self) -> int:
        """A lower bound of the events that the kernel could not allocate, of which it keeps no count."""
        return self.socket.unallocated + self.unaccounted

    @property
    def spoofed(self) -> int:
        """Datagrams ignored because a process sent them, not the kernel."""
        return self.socket.spoofed + (self.dump.socket.spoofed if self.dump is not None else 0)

    cdef int grow(self, bint full) noexcept nogil:
        return self.share.grow(self.socket, full)

    cdef void mark_active(self, int64_t now) noexcept nogil:
        self.last_event_at = now

    cdef void mark_drained(self, int64_t time) noexcept nogil:
        self.drained_at = time

    cdef void note_idle(self, int64_t now) noexcept nogil:
        self.drained_at = now
        if now - self.last_event_at > IDLE_S * <int64_t>1000000000:
            self.share.shrink(self.socket, self.initial_rcvbuf)

    cdef void mark_overrun(self) noexcept nogil:
        if not self.overrun:
            self.losses += 1
            self.overrun = True
            self.loss_started_at = self.drained_at
            self.unreported_since = self.unreported_since or self.drained_at

    cdef void clear_overrun(self) noexcept nogil:
        self.losses += 1
        self.overrun = False

    cdef void mark_ended(self, const flow_t *flow) noexcept nogil:
        if self.purpose == PURPOSE_EXISTING and self.dump_in_progress and self.ended_flows.count < EXISTING_MAX:
            fingerprint_set_add(&self.ended_flows, flow_fingerprint(flow))

    cdef bint has_ended(self, const flow_t *flow) noexcept nogil:
        return self.ended_flows.count and fingerprint_set_has(&self.ended_flows, flow_fingerprint(flow))

    cdef bint admit(self, const flow_t *flow) noexcept nogil:
        cdef uint64_t fingerprint
        if self.dump is None or flow.type != EVENT_NEW:
            return True
        fingerprint = flow_fingerprint(flow)
        if self.deduplicating:
            if fingerprint_set_has(&self.recovered_flows, fingerprint):
                self.add_recovered(-1)
                return False
            # The dump in progress will find this flow as well.
            if not self.finish_due:
                fingerprint_set_add(&self.reported_flows, fingerprint)
        # If memory is exhausted, the flow may be reported twice after an overrun.
        fingerprint_log_add(&self.log, fingerprint)
        return True

    cdef void add_recovered(self, int64_t count) noexcept nogil:
        if self.purpose == PURPOSE_EXISTING or self.purpose == PURPOSE_LIST:
            self.existing_count += count
        else:
            self.recovered_count += count

    cdef int _select_missed(self, int count) noexcept nogil:
        """Log the first `count` of dump.flows, move the unreported ones to the front, and return how many those are."""
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
                continue        # its event is still queued
            fingerprint_log_add(&self.live_log, fingerprint)
            # A dump may show an entry twice.
            if not known and fingerprint_set_add(&self.recovered_flows, fingerprint) == 1:
                flows[missed] = flows[i]
                missed += 1
        return missed

    cdef void _finish_dump(self, bint complete) noexcept nogil:
        """Bring the log up to date after a dump.

        After a complete dump, forget the flows that were not in the table: they have ended. After an incomplete one,
        keep all and add what it found, or flows just recovered would be recovered again.
        """
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
        cdef uint64_t known
        cdef uint64_t found
        self.deduplicating = self.finish_due = False
        fingerprint_set_free(&self.recovered_flows)
        self.socket.count_lost()
        known = self.socket.lost + self.socket.unallocated + self.unaccounted
        found = max(known, self.recovered_count + self.reported_lost) - known     # more than were lost
        self.reported_lost -= min(found, self.tentative)
        self.unaccounted += found - min(found, self.tentative)
        self.tentative -= min(found, self.tentative)

    cdef void begin_dump(self, purpose_t purpose) noexcept nogil:
        # In pieces, since a million entries take half a second, for which the flows of other namespaces would wait.
        self.purpose = purpose
        self.dump_in_progress = self.dump is not None
        self.dump_requested = self.sweep_requested = False
        self.log_indexed = 0
        if purpose == PURPOSE_RECOVER or purpose == PURPOSE_EXISTING:
            self.clear_overrun()
            self.deduplicating = self.dump_in_progress
            self.recovery_since = self.loss_started_at
        # If memory is exhausted, advance_dump() fails.
        if purpose != PURPOSE_SEED:
            fingerprint_set_reserve(&self.reported_flows, self.log.count)

    cdef int advance_dump(self) noexcept nogil:
        cdef int result
        self.missed_count = 0
        if self.purpose == PURPOSE_EXISTING:
            return self._advance_existing()
        result = -EINTR if self.stopping else self._advance_dump()
        if result <= 0:
            self.dump_in_progress = False
            self.dump_incomplete = result < 0
            self.finish_due = self.deduplicating
            self._finish_dump(result == 0)
        return result

    cdef int _advance_existing(self) noexcept nogil:
        self.missed_flows = self.existing_flows + self.existing_flows_delivered
        self.missed_count = min(<int>EXISTING_PIECE, self.existing_flow_count - self.existing_flows_delivered)
        self.existing_flows_delivered += self.missed_count
        if self.missed_count == 0:
            free(self.existing_flows)
            self.existing_flows = NULL
            fingerprint_set_free(&self.ended_flows)
            self.dump_in_progress = False
            self.finish_due = True
        return self.dump_in_progress

    cdef void run_dump(self) noexcept nogil:
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
        if self.dump is None or self.deduplicating or self.dump_in_progress:
            return False
        if self.sweep_requested or self.log.count > 2 * self.live_at_sweep + SWEEP_EXCESS:
            return True
        if now - self.last_event_at <= IDLE_S * <int64_t>1000000000:
            return False
        return self.log.count > self.live_at_sweep + IDLE_SWEEP_EXCESS

    cdef void count_losses(self) noexcept nogil:
        self.socket.count_lost()
        self.unallocated_counted = self.socket.unallocated
        self.losses_counted = self.socket.lost + self.unallocated_counted

    cdef uint64_t take_unreported(self, bint tentative) noexcept nogil:
        cdef uint64_t accounted = self.recovered_count + self.reported_lost
        cdef uint64_t result = max(accounted, self.losses_counted + self.unaccounted) - accounted
        self.reported_lost += result
        if tentative:
            self.tentative += result
        self.reported_recovered = self.recovered_count
        self.reported_unallocated = self.unallocated_counted + self.unaccounted
        return result

    cdef int64_t take_since(self) noexcept nogil:
        cdef int64_t since = self.unreported_since or self.drained_at
        # What a dump has not begun to look for yet may be counted by the next report only.
        self.unreported_since = self.loss_started_at if self.overrun else 0
        return since
