"""The files of one process in /proc, parsed: stat, status, cgroup, cmdline."""
from libc.stdint cimport int32_t, uint64_t

from .cgroup cimport span_t

cdef enum:
    STAT_SIZE = 1024         # 52 numbers and a name
    PF_EXITING = 0x4         # these two are include/linux/sched.h, not exported, and unchanged since 2.6.27
    PF_KTHREAD = 0x200000

cdef struct stat_t:
    span_t comm              # points into the buffer
    uint64_t start
    uint64_t flags
    uint64_t arguments       # bytes of the command line; 0 unknown
    uint64_t image           # a hash that differs after execve
    uint64_t code            # where the program's code begins; 0 in the midst of execve, 1 hidden
    int32_t ppid
    char state

# Each returns a count or -errno. `buf` takes STAT_SIZE bytes.
cdef int stat_read(int dirfd, const char *name, char *buf, stat_t *out) noexcept nogil
cdef uint64_t image_mix(uint64_t hash, const char *p, size_t size) noexcept nogil
cdef bint status_number(const char *buf, const char *end, const char *key, size_t size, uint64_t *out) noexcept nogil
cdef span_t cgroup_choose(const char *buf, size_t size) noexcept nogil    # the one path to show of all hierarchies
# Keeps up to `limit` bytes without the last NUL; *whole is the size of all, taken from `known` (0: unknown) if that saves
# reading it.
cdef ssize_t cmdline_read(int dirfd, char *buf, size_t limit, uint64_t known, uint64_t *whole) noexcept nogil
