"""Which network namespaces processes are in: all, and those that came lately."""
from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    ROOM = 1024
    SLOTS = 4096

# Numbers that processes were given, after `begin`, up to `end`.
cdef struct span_of_pids_t:
    int64_t at                  # CLOCK_MONOTONIC ns: when they are looked at next; 0: they are not
    int32_t begin
    int32_t end
    int looks                   # that were

cdef class NetnsCensus:
    cdef str proc
    cdef int root               # of /proc
    cdef bint stopping
    cdef int32_t last           # the number given last
    cdef int32_t most           # and the largest there is
    cdef span_of_pids_t spans[64]
    cdef int next               # of these
    cdef bint missed            # there were more than could be looked at
    cdef uint64_t met[SLOTS]    # inodes, to find most of those that come again
    cdef int32_t pids[ROOM]     # one of each found,
    cdef uint64_t inodes[ROOM]  # and its namespace
    cdef int count
    cdef void _meet(self, int32_t pid) noexcept nogil
    cdef int64_t _given(self) noexcept nogil
    cdef void _look(self, span_of_pids_t *span, int64_t until) noexcept nogil
    cdef dict _found(self)
