from libc.stdint cimport int64_t, uint64_t
from nfct_fast.events.receive_memory cimport Share
from nfct_fast.events.flow cimport flow_t
from nfct_fast.kernel.netlink cimport NetlinkSocket
from nfct_fast.events.fingerprints cimport fingerprint_log_t, fingerprint_set_t
from nfct_fast.events.conntrack_dump cimport ConntrackDump

cdef enum sift_t:
    SIFT_SEED                # all entries are known from now on
    SIFT_SWEEP               # known ones that have ended are forgotten
    SIFT_RECOVER             # unknown ones are picked out: their events were lost,
    SIFT_GREET               # or nobody listened yet

cdef class Source:
    cdef readonly NetlinkSocket socket
    cdef tuple groups
    cdef readonly Share share    # of the receive memory
    cdef int64_t least           # bytes of it at the start
    cdef readonly bint closed
    cdef readonly ConntrackDump table    # None: nothing is recovered
    cdef readonly uint64_t inode # of the namespace
    cdef readonly int index
    cdef bint overrun            # events were lost, and the table was not yet searched for them
    cdef bint leaving            # no further events will be queued: it goes once all is read
    cdef bint stopping           # no table is read on
    cdef bint doubtful           # queued events may be of flows that are being recovered, or just were,
    cdef bint settling           # and all of the table that there is to find was found
    cdef bint partial            # it could not be read to its end
    cdef flow_t *found           # the first of `missed` flows that are to be delivered as recovered
    cdef int missed
    cdef flow_t *early_flows     # those that the table had before anybody listened,
    cdef int early_count
    cdef int early_room
    cdef int early_next          # and so many of them were delivered
    cdef fingerprint_log_t log               # entries whose NEW was delivered, or that were there before the start
    cdef bint due                # it is to be swept, whatever came
    cdef bint reading            # the table is to be read, to seed or to sweep,
    cdef bint asked              # and is being sent
    cdef uint64_t noted          # so many of the log are older than that reading; what it finds takes their place
    cdef fingerprint_set_t reported_flows         # and these, as a set, while it goes on
    cdef fingerprint_log_t living            # entries of the table
    cdef sift_t how              # what it is read for
    cdef fingerprint_set_t recovered
    cdef uint64_t swept          # entries that lived when the log was last held against the table
    cdef readonly int64_t active # CLOCK_MONOTONIC ns of the last event
    cdef int64_t emptied         # and when last all events before it had been received
    cdef int64_t unsure          # what that was when the first of the events was lost since the table was last searched,
    cdef int64_t began           # and of those that are looked for now
    cdef readonly uint64_t recoveries    # flows delivered from the table whose events were lost,
    cdef readonly uint64_t early         # and those that began before anybody listened
    cdef uint64_t missing        # events lost, as far as they are to be told of now,
    cdef uint64_t missing_unmade # and of these the ones that are in no count of the kernel's
    cdef uint64_t hopeful        # told of where the table could not be read to its end: they may yet be found there
    cdef uint64_t surplus        # recovered ones that neither a drop nor an error accounts for
    cdef readonly uint64_t reported          # lost events that were told of
    cdef readonly uint64_t reported_recovered
    cdef readonly uint64_t reported_unmade
    cdef int grow(self, bint full) noexcept nogil
    cdef void rest(self, int64_t now) noexcept nogil
    cdef void mark_overrun(self) noexcept nogil
    cdef bint admit(self, const flow_t *flow) noexcept nogil
    cdef void found_again(self, int64_t count) noexcept nogil
    cdef void end_table(self, bint complete) noexcept nogil
    cdef void end_doubt(self) noexcept nogil
    cdef void begin_reading(self, sift_t how) noexcept nogil
    cdef int read_on(self) noexcept nogil
    cdef void end_reading(self) noexcept nogil
    cdef int _read_on(self) noexcept nogil
    cdef int _greet_on(self) noexcept nogil
    cdef int _keep(self, int count) noexcept nogil
    cdef int _sift(self, int count) noexcept nogil
    cdef bint wants_sweep(self, int64_t now) noexcept nogil
    cdef void count(self) noexcept nogil
    cdef uint64_t take_unreported(self, bint hopeful) noexcept nogil
