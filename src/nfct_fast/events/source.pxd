from libc.stdint cimport int64_t, uint64_t
from nfct_fast.events.receive_memory cimport Share
from nfct_fast.events.flow cimport flow_t
from nfct_fast.kernel.netlink cimport NetlinkSocket
from nfct_fast.events.fingerprints cimport fingerprint_log_t, fingerprint_set_t
from nfct_fast.events.conntrack_dump cimport ConntrackDump

cdef enum purpose_t:
    PURPOSE_SEED                # all entries are known from now on
    PURPOSE_SWEEP               # known ones that have ended are forgotten
    PURPOSE_RECOVER             # unknown ones are picked out: their events were lost,
    PURPOSE_EXISTING               # or nobody listened yet

cdef class Source:
    cdef readonly NetlinkSocket socket
    cdef tuple groups
    cdef readonly Share share    # of the receive memory
    cdef int64_t initial_rcvbuf           # bytes of it at the start
    cdef readonly bint closed
    cdef readonly ConntrackDump dump    # None: nothing is recovered
    cdef readonly uint64_t inode # of the namespace
    cdef readonly int index
    cdef bint overrun            # events were lost, and the table was not yet searched for them
    cdef bint retiring            # no further events will be queued: it goes once all is read
    cdef bint stopping           # no table is read on
    cdef bint deduplicating           # queued events may be of flows that are being recovered, or just were,
    cdef bint settle_pending           # and all of the table that there is to find was found
    cdef bint dump_incomplete            # it could not be read to its end
    cdef flow_t *missed_flows           # the first of `missed` flows that are to be delivered as recovered
    cdef int missed_count
    cdef flow_t *existing_flows     # those that the table had before anybody listened,
    cdef int existing_flow_count
    cdef int existing_flow_capacity
    cdef int existing_flows_delivered          # and so many of them were delivered
    cdef fingerprint_log_t log               # entries whose NEW was delivered, or that were there before the start
    cdef bint sweep_requested                # it is to be swept, whatever came
    cdef bint dump_in_progress            # the table is to be read, to seed or to sweep,
    cdef bint dump_requested              # and is being sent
    cdef uint64_t log_indexed          # so many of the log are older than that reading; what it finds takes their place
    cdef fingerprint_set_t reported_flows         # and these, as a set, while it goes on
    cdef fingerprint_log_t live_log            # entries of the table
    cdef purpose_t purpose              # what it is read for
    cdef fingerprint_set_t recovered_flows
    cdef uint64_t live_at_sweep          # entries that lived when the log was last held against the table
    cdef readonly int64_t last_event_at # CLOCK_MONOTONIC ns of the last event
    cdef int64_t drained_at         # and when last all events before it had been received
    cdef int64_t loss_started_at          # what that was when the first of the events was lost since the table was last searched,
    cdef int64_t recovery_since           # and of those that are looked for now
    cdef readonly uint64_t recovered_count    # flows delivered from the table whose events were lost,
    cdef readonly uint64_t existing_count         # and those that began before anybody listened
    cdef uint64_t losses_counted        # events lost, as far as they are to be told of now,
    cdef uint64_t unallocated_counted # and of these the ones that are in no count of the kernel's
    cdef uint64_t tentative        # told of where the table could not be read to its end: they may yet be found there
    cdef uint64_t unaccounted        # recovered ones that neither a drop nor an error accounts for
    cdef readonly uint64_t reported_lost          # lost events that were told of
    cdef readonly uint64_t reported_recovered
    cdef readonly uint64_t reported_unallocated
    cdef int grow(self, bint full) noexcept nogil
    cdef void note_idle(self, int64_t now) noexcept nogil
    cdef void mark_overrun(self) noexcept nogil
    cdef bint admit(self, const flow_t *flow) noexcept nogil
    cdef void add_recovered(self, int64_t count) noexcept nogil
    cdef void _finish_dump(self, bint complete) noexcept nogil
    cdef void finish_deduplicating(self) noexcept nogil
    cdef void begin_dump(self, purpose_t purpose) noexcept nogil
    cdef int advance_dump(self) noexcept nogil
    cdef void run_dump(self) noexcept nogil
    cdef int _advance_dump(self) noexcept nogil
    cdef int _advance_existing(self) noexcept nogil
    cdef int _keep_existing(self, int count) noexcept nogil
    cdef int _select_missed(self, int count) noexcept nogil
    cdef bint wants_sweep(self, int64_t now) noexcept nogil
    cdef void count_losses(self) noexcept nogil
    cdef uint64_t take_unreported(self, bint tentative) noexcept nogil
