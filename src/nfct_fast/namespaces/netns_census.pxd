"""Which network namespaces processes are in: all, and those that came lately."""
from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    FOUND_MAX = 1024
    SLOTS = 4096

# Numbers that processes were given, after `begin`, up to `end`.
cdef struct pid_range_t:
    int64_t at                  # CLOCK_MONOTONIC ns: when they are looked at next; 0: they are not
    int32_t begin
    int32_t end
    int looks                   # that were

cdef class NetnsCensus:
    cdef str proc
    cdef int root               # of /proc
    cdef bint stopping
    cdef int32_t last_pid           # the number given last
    cdef int32_t pid_max           # and the largest there is
    cdef pid_range_t ranges[64]
    cdef int next_range               # of these
    cdef bint is_overtaken            # there were more than could be looked at
    cdef uint64_t seen[SLOTS]    # inodes, to find most of those that come again
    cdef int32_t pids[FOUND_MAX]     # one of each found,
    cdef uint64_t inodes[FOUND_MAX]  # and its namespace
    cdef int count
    cdef void _look_up(self, int32_t pid) noexcept nogil
    cdef int64_t _last_pid(self) noexcept nogil
    cdef void _scan(self, pid_range_t *span, int64_t until) noexcept nogil
    cdef dict _take_found(self)
