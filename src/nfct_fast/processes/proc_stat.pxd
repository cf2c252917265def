"""The files of one process in /proc, parsed: stat, status, cgroup."""
from libc.stdint cimport int32_t, uint64_t

from nfct_fast.processes.cgroup cimport span_t

cdef enum:
    STAT_SIZE = 1024         # 52 numbers and a name
    PF_EXITING = 0x4         # these two are include/linux/sched.h, not exported, and unchanged since 2.6.27
    PF_KTHREAD = 0x200000

cdef struct stat_t:
    span_t comm              # points into the buffer
    uint64_t start
    uint64_t flags
    uint64_t arguments       # bytes of the command line; 0 unknown
    uint64_t arg_start       # where it begins in the process's memory; 0 unknown
    uint64_t program_hash           # a hash that differs after execve
    uint64_t code            # where the program's code begins; 0 in the midst of execve, 1 hidden
    int32_t ppid
    char state

# Each returns a count or -errno. `buf` takes STAT_SIZE bytes.
cdef int stat_read(int root, int32_t pid, char *buf, stat_t *out) noexcept nogil
# The same below an open /proc/PID: it fails once the process has ended, even if its pid is used again.
cdef int stat_read_below(int dirfd, int32_t pid, char *buf, stat_t *out) noexcept nogil
cdef uint64_t hash_mix(uint64_t hash, const char *p, size_t size) noexcept nogil
cdef bint status_number(const char *buf, const char *end, const char *key, size_t size, uint64_t *out) noexcept nogil
# The one path to show of all hierarchies; *systemd: it is of the v1 hierarchy name=systemd, not of cgroup2.
cdef span_t cgroup_choose(const char *buf, size_t size, bint *systemd) noexcept nogil
