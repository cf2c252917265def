"""What the conntrack tables are read for: flows whose events were lost, and fingerprints that are not needed any more."""
from libc.stdint cimport int64_t
from nfct_fast.reading.intake cimport Intake
from nfct_fast.events.source cimport Source
from nfct_fast.events.sources cimport Sources

cdef class Recovery:
    cdef Intake intake
    cdef Sources sources
    cdef bint in_progress            # some table is being read
    cdef int next_source                # whose it is next
    # Once a second: have what was reported held against the tables where it has grown, and take note of where nothing is queued:
    # what comes next is no older.
    cdef void sweep(self) noexcept nogil
    # The source lost events, and is empty: have its table searched for them.
    cdef int begin(self, Source source) noexcept nogil
    # Goes on reading tables, for 2 ms, and delivers what was missed; 0 or -errno.
    cdef int advance(self) noexcept nogil
    # The table was searched, and all that was queued meanwhile read: tells of what was not found. 0 or -errno.
    cdef int settle(self, Source source) noexcept nogil
    # After stop(): what is still to be delivered is, as far as there is room, and else counted.
    cdef void finish(self, Source source) noexcept nogil
    cdef int _deliver_missed(self, Source source) noexcept nogil
