from libc.stdint cimport int32_t, int64_t, uint64_t
from nfct_fast.processes.account_names cimport AccountNames

cdef enum:
    ENTITY_ID_SIZE = 16
    START_SIZE = 23          # "2026-11-27T15:04:05.12Z" without the quotes

cdef class Identity:
    cdef readonly object host            # a Host
    cdef readonly int64_t boot_time      # when it booted, ns since the epoch, to 10 ms; 0: not known
    cdef AccountNames names
    cdef char _boot_id[33]
    cdef int64_t _tick                   # ns
    cdef tuple saved(self, uids, gids)
    # Write the name of a process that starts `ticks` after boot to out[0..ENTITY_ID_SIZE); False: it is not known.
    cdef bint entity_id(self, int32_t pid, uint64_t ticks, char *out) noexcept nogil
    cdef int64_t start_time(self, uint64_t ticks) noexcept nogil     # ns since the epoch
    cdef void start_text(self, uint64_t ticks, char *out) noexcept nogil     # to out[0..START_SIZE)
    cdef uint64_t ticks(self, uint64_t start_ns) noexcept nogil
    # ns from boot to a process's start: exact if that is known, else by its ticks; 0: not known
    cdef uint64_t start_ns(self, uint64_t exact, uint64_t ticks) noexcept nogil
