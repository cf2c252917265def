from libc.stdint cimport uint64_t
from nfct_fast.events.flow cimport flow_t

# Return the fingerprint of a flow's conntrack entry, never 0.
cdef uint64_t flow_fingerprint(const flow_t *flow) noexcept nogil

# A hash set of fingerprints, with open addressing. Empty if zeroed.
ctypedef struct fingerprint_set_t:
    uint64_t *slots          # 0 is a free slot; NULL while the set is empty
    uint64_t mask            # number of slots - 1
    uint64_t count           # fingerprints in the set

# Make room for `count` fingerprints in all. 0 or -ENOMEM.
cdef int fingerprint_set_reserve(fingerprint_set_t *set, uint64_t count) noexcept nogil
# Add a fingerprint. Return 1 if it was added, 0 if the set had it already, or -ENOMEM.
cdef int fingerprint_set_add(fingerprint_set_t *set, uint64_t fingerprint) noexcept nogil
cdef bint fingerprint_set_has(const fingerprint_set_t *set, uint64_t fingerprint) noexcept nogil
# Free the memory; the set is empty again.
cdef void fingerprint_set_free(fingerprint_set_t *set) noexcept nogil

# A log of fingerprints in the order in which they were added, including duplicates. Empty if zeroed.
ctypedef struct fingerprint_log_t:
    uint64_t *entries
    uint64_t count
    uint64_t capacity

# Append a fingerprint. 0 or -ENOMEM.
cdef int fingerprint_log_add(fingerprint_log_t *log, uint64_t fingerprint) noexcept nogil
# Free the memory; the log is empty again.
cdef void fingerprint_log_free(fingerprint_log_t *log) noexcept nogil
# Add entries [begin, end) of the log to the set. 0 or -ENOMEM.
cdef int fingerprint_set_add_log(fingerprint_set_t *set, const fingerprint_log_t *log, uint64_t begin,
                                 uint64_t end) noexcept nogil
