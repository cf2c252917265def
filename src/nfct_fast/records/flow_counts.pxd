"""Counts of the flows that were taken, for metrics."""
from libc.stdint cimport int64_t, uint64_t
from posix_pthread cimport pthread_mutex_t
from nfct_fast.events.flow cimport EVENT_COUNT
from nfct_fast.records.owner cimport MATCH_COUNT, REASON_COUNT
from nfct_fast.records.record cimport record_t
from nfct_fast.records.unit_counts cimport unit_counts_t

cdef enum:
    DELAY_BOUNDS = 17        # a further bucket has no upper bound
    DELAYS = 2               # since the kernel made the event; since it was received

ctypedef struct delays_t:
    uint64_t buckets[DELAY_BOUNDS + 1]   # flows by delay, each counted in one bucket
    uint64_t sum                         # ns

ctypedef struct counts_t:
    uint64_t events[EVENT_COUNT]         # by EVENT_*
    uint64_t matches[MATCH_COUNT]        # flows whose process is known, by MATCH_*
    uint64_t reasons[REASON_COUNT]       # the others, by REASON_*
    delays_t delays[DELAYS]

# One thread at a time adds to it, any may read it. `mutex` is held for one batch, or one copy.
cdef class FlowCounts:
    cdef pthread_mutex_t mutex
    cdef bint mutex_made
    cdef counts_t counts
    cdef unit_counts_t units
    cdef readonly int flow_type          # an EVENT_*: there is one record of it for each flow, by which units count
    cdef int64_t received                # of the record before, as those received together have one time
    cdef int bucket                      # of that record
    cdef void add(self, const record_t *records, int count) noexcept nogil
    cdef void _add_delay(self, const record_t *record, int64_t now) noexcept nogil
    cdef void _add_unit(self, const record_t *record, int64_t now) noexcept nogil
