"""One record for each flow, at its end."""
from libc.stdint cimport int64_t, uint8_t
from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.events.source cimport Source
from nfct_fast.records.live_flows cimport LiveFlows
from nfct_fast.records.record cimport record_t

# Used by the reading thread only, except the counts.
cdef class FlowEnds:
    cdef readonly LiveFlows live
    cdef Resolver attribution
    cdef bint begins_wanted      # NEW events are delivered, too
    # Call before the batch is attributed: find which flows end of those that are remembered.
    cdef void begin(self, Source source, record_t *records, int count) noexcept nogil
    # Call after that: remember the flows that begin, turn DESTROY events into records of flows, and leave the records
    # that are to be delivered at the front. Return how many they are.
    cdef int finish(self, Source source, record_t *records, int count) noexcept nogil
    cdef void _end(self, Source source, record_t *record) noexcept nogil
