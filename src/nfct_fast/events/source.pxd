from libc.stdint cimport int64_t, uint32_t, uint64_t
from stdatomic cimport atomic_bool, atomic_uint64_t
from nfct_fast.events.receive_memory cimport Share
from nfct_fast.events.flow cimport flow_t
from nfct_fast.kernel.netlink cimport NetlinkSocket
from nfct_fast.events.fingerprints cimport fingerprint_log_t, fingerprint_set_t
from nfct_fast.events.conntrack_dump cimport ConntrackDump

# Why a conntrack table is dumped.
cdef enum purpose_t:
    PURPOSE_SEED             # to learn which flows exist before the first event is read
    PURPOSE_SWEEP            # to drop the fingerprints of flows that have ended
    PURPOSE_RECOVER          # to find flows whose NEW event was lost
    PURPOSE_EXISTING         # to report the flows that existed before the namespace was monitored
    PURPOSE_LIST             # to report all entries, and nothing else

cdef class Source:
    cdef readonly NetlinkSocket socket
    cdef tuple groups                    # the multicast groups that the socket has joined
    cdef readonly Share share            # the Share that the receive buffer is taken from
    cdef int64_t initial_rcvbuf          # bytes of receive buffer requested at the start; an idle source shrinks to it
    cdef readonly bint closed
    cdef readonly ConntrackDump dump     # the namespace's table; None: lost events are counted, flows are not recovered
    cdef readonly uint64_t inode         # inode of the network namespace
    cdef readonly int index              # the namespace's number in flow_t.netns
    cdef bint overrun                    # events were lost, and no dump has begun to look for their flows yet
    cdef uint32_t losses                 # changes when events are lost, and once more when all before the loss are read
    cdef fingerprint_set_t ended_flows   # flows whose DESTROY came while those that existed are still to be delivered
    cdef atomic_bool retiring            # the socket has left its groups: release the source once its queue is empty
    cdef atomic_bool stopping            # a running dump is to be cut short

    # Recovery takes three steps: index the log of fingerprints, dump the table, and read the events queued meanwhile.
    cdef purpose_t purpose               # of the current or last dump
    cdef bint dump_in_progress           # advance_dump() has more to do
    cdef bint dump_requested             # the log is indexed, and the table was requested from the kernel
    cdef bint dump_incomplete            # the last dump failed or was cut short
    cdef bint deduplicating              # events still queued may be of flows that the dump found as well
    cdef bint finish_due                 # the dump is over, and finish_deduplicating() is due once the queue is empty
    cdef flow_t *missed_flows            # flows the last advance_dump() found to be unreported
    cdef int missed_count                # number of missed_flows
    cdef flow_t *existing_flows          # flows found by load_existing(), in malloc()ed memory
    cdef int existing_flow_count
    cdef int existing_flow_capacity
    cdef int existing_flows_delivered    # how many of existing_flows advance_dump() has handed out

    cdef fingerprint_log_t log           # flows that were reported or existed at the start, until they are known to end
    cdef uint64_t log_indexed            # entries of `log` from before this dump, indexed in reported_flows so far
    cdef fingerprint_set_t reported_flows    # the indexed part of `log`, while a dump is in progress
    cdef fingerprint_log_t live_log      # flows the dump in progress has found in the table
    cdef fingerprint_set_t recovered_flows   # flows delivered from the dump whose own event may still be queued
    cdef uint64_t live_at_sweep          # size of the table at the last complete dump
    cdef atomic_bool sweep_requested     # dump with PURPOSE_SWEEP soon, however short the log is

    cdef readonly int64_t last_event_at  # CLOCK_MONOTONIC ns when a batch was last received
    cdef int64_t drained_at              # CLOCK_MONOTONIC ns at which all earlier events were last known to be received
    cdef int64_t loss_started_at         # value of drained_at at the first loss after a PURPOSE_RECOVER dump last began
    cdef int64_t unreported_since        # value of drained_at at the first loss that no LOST record reported; 0: none
    cdef int64_t recovery_since          # value of loss_started_at for the losses that this PURPOSE_RECOVER dump is for

    cdef readonly atomic_uint64_t recovered_count   # flows delivered from the table because their event was lost
    cdef readonly atomic_uint64_t existing_count    # flows delivered that existed before the namespace was monitored
    cdef uint64_t losses_counted                 # all lost events, as of the last count_losses()
    cdef uint64_t unallocated_counted            # events in losses_counted that the kernel could not allocate
    cdef uint64_t tentative                      # events reported as lost that a later, complete dump may still find
    cdef atomic_uint64_t unaccounted             # recovered flows in excess of all losses that the kernel reported
    cdef readonly atomic_uint64_t reported_lost         # lost events in LOST records so far
    cdef readonly atomic_uint64_t reported_recovered    # recovered_count at the last LOST record
    cdef readonly atomic_uint64_t reported_unallocated  # unallocated events at the last LOST record

    # Grow the receive buffer if more than half of it is used, or if it was `full`, as far as the share allows. Return 1
    # if it grew, 0 if not, or -errno.
    cdef int grow(self, bint full) noexcept nogil
    # Note that a batch was received at `now`, CLOCK_MONOTONIC ns.
    cdef void mark_active(self, int64_t now) noexcept nogil
    # Note that the queue was empty after `time`, CLOCK_MONOTONIC ns: events received later also happened later.
    cdef void mark_drained(self, int64_t time) noexcept nogil
    # As mark_drained(); also give memory back if no event has come for a while.
    cdef void note_idle(self, int64_t now) noexcept nogil
    # Note that the kernel reported a loss (ENOBUFS).
    cdef void mark_overrun(self) noexcept nogil
    # Note that the loss was dealt with without a dump.
    cdef void clear_overrun(self) noexcept nogil
    # Whether to deliver an event; False if its flow was already delivered from the table.
    cdef bint admit(self, const flow_t *flow) noexcept nogil
    # A DESTROY event was read of a flow that was not delivered.
    cdef void mark_ended(self, const flow_t *flow) noexcept nogil
    # Whether that was so of a flow from the table.
    cdef bint has_ended(self, const flow_t *flow) noexcept nogil
    # Count `count` flows delivered from the table.
    cdef void add_recovered(self, int64_t count) noexcept nogil
    # Start a dump, which advance_dump() then does piece by piece.
    cdef void begin_dump(self, purpose_t purpose) noexcept nogil
    # Do the next piece, which may wait up to 5 s for the kernel. Return 1 if there is more, 0 at the end, or -errno.
    # The caller has to deliver missed_flows before the next call.
    cdef int advance_dump(self) noexcept nogil
    # Do all remaining pieces; only for dumps of which nothing is delivered.
    cdef void run_dump(self) noexcept nogil
    # End the recovery: all events that were queued while the table was dumped have been read.
    cdef void finish_deduplicating(self) noexcept nogil
    # Whether so many fingerprints were added since the last sweep that most must be of flows that have ended.
    cdef bint wants_sweep(self, int64_t now) noexcept nogil
    # Read from the kernel how many events were lost; take_unreported() reports up to that number.
    cdef void count_losses(self) noexcept nogil
    # Return the number of lost events that no LOST record has reported and no dump has found; they then count as
    # reported. tentative: a later dump may still find them.
    cdef uint64_t take_unreported(self, bint tentative) noexcept nogil
    # CLOCK_MONOTONIC ns when nothing of what take_unreported() returns was lost yet. Call it with each of these.
    cdef int64_t take_since(self) noexcept nogil
    cdef int _advance_dump(self) noexcept nogil
    cdef int _advance_existing(self) noexcept nogil
    cdef void _finish_dump(self, bint complete) noexcept nogil
    cdef int _keep_existing(self, int count) noexcept nogil
    cdef int _select_missed(self, int count) noexcept nogil
