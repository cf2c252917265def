"""Parse files of one process in /proc: stat, status, cgroup."""
from libc.stdint cimport int32_t, uint64_t

from nfct_fast.processes.cgroup cimport span_t

cdef enum:
    STAT_SIZE = 1024         # bytes read of /proc/PID/stat, which has 52 numbers and a name
    PF_EXITING = 0x4         # the two PF_* are from include/linux/sched.h, not exported, unchanged since 2.6.27
    PF_KTHREAD = 0x200000

cdef struct stat_t:
    span_t comm              # name of the main thread; points into the buffer
    uint64_t start
    uint64_t flags
    uint64_t arguments       # bytes of the command line; 0: not known
    uint64_t arg_start       # address of the command line in the process's memory; 0: not known
    uint64_t program_hash    # hash of the name and the addresses of code, stack and arguments: changes with execve
    uint64_t code            # address of the program's code; 0 during execve, 1 if the caller may not see it
    int32_t ppid
    char state

# Read /proc/PID/stat below `root`, a descriptor of /proc, into `buf` of STAT_SIZE bytes, and parse it. 0 or -errno.
cdef int stat_read(int root, int32_t pid, char *buf, stat_t *out) noexcept nogil
# The same below a descriptor of /proc/PID. -ESRCH once the process has ended, even if its pid has been reused.
cdef int stat_read_below(int dirfd, int32_t pid, char *buf, stat_t *out) noexcept nogil
# Extend a hash by `size` bytes (FNV-1a).
cdef uint64_t hash_mix(uint64_t hash, const char *p, size_t size) noexcept nogil
# Find the number after `key` at the beginning of a line of /proc/PID/status. Return False if there is none.
cdef bint status_number(const char *buf, const char *end, const char *key, size_t size, uint64_t *out) noexcept nogil
# Choose the path to show among the lines of /proc/PID/cgroup. *systemd: it is in the v1 hierarchy name=systemd.
cdef span_t cgroup_choose(const char *buf, size_t size, bint *systemd) noexcept nogil
