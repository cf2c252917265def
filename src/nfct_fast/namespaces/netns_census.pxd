"""Which network namespaces processes are in: all processes, or those that began lately."""
from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    FOUND_MAX = 1024
    SEEN_SLOTS = 4096

# Process ids that the kernel has assigned one after the other.
cdef struct pid_range_t:
    int64_t look_at             # CLOCK_MONOTONIC ns: when to look at these processes next; 0: not any more
    int32_t begin               # the last process id before the range
    int32_t end                 # the last process id of the range
    int looks                   # times that they were looked at

cdef class NetnsCensus:
    cdef str proc
    cdef int root               # O_PATH descriptor of /proc
    cdef bint stopping          # stop() was called
    cdef int32_t last_pid       # the process id that was assigned last
    cdef int32_t pid_max        # kernel.pid_max, after which they begin anew
    cdef pid_range_t ranges[64]
    cdef int next_range         # the one to be used next
    cdef bint is_overtaken      # more processes began than could be looked at
    cdef uint64_t seen[SEEN_SLOTS]    # inodes that are in `inodes` already; another may displace one
    cdef int32_t pids[FOUND_MAX]      # a process in each namespace found,
    cdef uint64_t inodes[FOUND_MAX]   # and the namespace's inode
    cdef int count                    # of both
    cdef void _look_up(self, int32_t pid) noexcept nogil
    cdef int64_t _last_pid(self) noexcept nogil
    cdef void _scan(self, pid_range_t *range_, int64_t until) noexcept nogil
    cdef dict _take_found(self)
