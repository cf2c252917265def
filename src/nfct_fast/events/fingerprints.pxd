from libc.stdint cimport uint64_t
from nfct_fast.events.flow cimport flow_t

cdef uint64_t flow_fingerprint(const flow_t *flow) noexcept nogil

# A set of fingerprints. `slots` is NULL while it is empty.
ctypedef struct fingerprint_set_t:
    uint64_t *slots          # 0: free
    uint64_t mask            # number of slots - 1
    uint64_t count

cdef int fingerprint_set_reserve(fingerprint_set_t *set, uint64_t count) noexcept nogil              # so that it need not grow; 0 or -ENOMEM
cdef int fingerprint_set_add(fingerprint_set_t *set, uint64_t fingerprint) noexcept nogil            # 1 it is new, 0 not, -ENOMEM
cdef bint fingerprint_set_has(const fingerprint_set_t *set, uint64_t fingerprint) noexcept nogil
cdef void fingerprint_set_free(fingerprint_set_t *set) noexcept nogil                                # and empty again

ctypedef struct fingerprint_log_t:
    uint64_t *entries
    uint64_t count
    uint64_t capacity

cdef int fingerprint_log_add(fingerprint_log_t *log, uint64_t fingerprint) noexcept nogil               # 0 or -ENOMEM
cdef void fingerprint_log_free(fingerprint_log_t *log) noexcept nogil
# Those of the log from number `begin` to before `end`; 0 or -ENOMEM.
cdef int fingerprint_set_add_log(fingerprint_set_t *set, const fingerprint_log_t *log, uint64_t begin, uint64_t end) noexcept nogil
