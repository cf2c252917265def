"""What became of a flow, as far as its conntrack entry says at its end."""
from libc.stdint cimport int64_t, uint8_t
from nfct_fast.events.flow cimport flow_t

cdef enum:
    OUTCOME_UNKNOWN
    OUTCOME_ANSWERED         # a packet came back; of TCP, and both ends closed it or its entry was deleted
    OUTCOME_UNANSWERED       # nothing came back
    OUTCOME_REFUSED          # TCP: the first thing that came back was a reset
    OUTCOME_RESET            # TCP: a reset ended it, by either end
    OUTCOME_TIMED_OUT        # TCP: answered, and then nobody spoke until the entry expired, although it was not closed
    OUTCOME_COUNT

# OUTCOME_UNKNOWN for a flow that has not ended.
cdef uint8_t flow_outcome(const flow_t *flow) noexcept nogil

# ns from the beginning to the end of a flow that has ended; -1: unknown. began: when its NEW event was received, ns
# since the epoch, for entries that have no times of the kernel's; 0: unknown.
cdef int64_t flow_duration(const flow_t *flow, int64_t began) noexcept nogil
