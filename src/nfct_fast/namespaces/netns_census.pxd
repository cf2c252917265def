"""Find the network namespaces of processes: of all processes, or of those that were started recently."""
from libc.stdint cimport int32_t, int64_t, uint64_t
from stdatomic cimport atomic_bool

cdef enum:
    FOUND_MAX = 1024
    SEEN_SLOTS = 4096

# A range of process ids that the kernel has assigned in sequence.
cdef struct pid_range_t:
    int64_t look_at             # CLOCK_MONOTONIC ns at which to look at these processes next; 0: not any more
    int32_t begin               # the last process id before the range
    int32_t end                 # the last process id of the range
    int looks                   # how often these processes were looked at

cdef class NetnsCensus:
    cdef str proc
    cdef int root               # O_PATH descriptor of /proc
    cdef atomic_bool stopping   # stop() was called
    cdef int32_t last_pid       # the process id that was assigned last
    cdef int32_t pid_max        # kernel.pid_max, after which the kernel starts over from low ids
    cdef pid_range_t ranges[64]
    cdef int next_range         # index of the range to use next
    cdef bint is_overtaken      # more processes were started than could be looked at
    cdef uint64_t seen[SEEN_SLOTS]    # hash of inodes that are in `inodes` already; a new one may displace another
    cdef int32_t pids[FOUND_MAX]      # pids[i]: a process in the namespace inodes[i]
    cdef uint64_t inodes[FOUND_MAX]   # inodes of the namespaces found
    cdef int count                    # valid entries of `pids` and `inodes`
    cdef void _look_up(self, int32_t pid) noexcept nogil
    cdef int64_t _last_pid(self) noexcept nogil
    cdef void _scan(self, pid_range_t *range_, int64_t until) noexcept nogil
    cdef dict _take_found(self)
