"""The files of one process in /proc, parsed: stat, status, cgroup."""
from libc.stdint cimport int32_t, uint64_t

from nfct_fast.processes.cgroup cimport span_t

cdef enum:
    STAT_SIZE = 1024         # 52 numbers and a name
    PF_EXITING = 0x4         # the two PF_* are from include/linux/sched.h, not exported, unchanged since 2.6.27
    PF_KTHREAD = 0x200000

cdef struct stat_t:
    span_t comm              # points into the buffer
    uint64_t start
    uint64_t flags
    uint64_t arguments       # bytes of the command line; 0: unknown
    uint64_t arg_start       # address of the command line in the process's memory; 0: unknown
    uint64_t program_hash    # of name and addresses: differs after execve
    uint64_t code            # address of the program's code; 0 during execve, 1 if hidden
    int32_t ppid
    char state

# Read and parse /proc/PID/stat below the /proc descriptor `root` into `buf`, of STAT_SIZE bytes. 0 or -errno.
cdef int stat_read(int root, int32_t pid, char *buf, stat_t *out) noexcept nogil
# The same below a descriptor of /proc/PID: -ESRCH once the process has ended, even if its pid is used again.
cdef int stat_read_below(int dirfd, int32_t pid, char *buf, stat_t *out) noexcept nogil
# FNV-1a.
cdef uint64_t hash_mix(uint64_t hash, const char *p, size_t size) noexcept nogil
# The number after `key` at the beginning of a line of /proc/PID/status.
cdef bint status_number(const char *buf, const char *end, const char *key, size_t size, uint64_t *out) noexcept nogil
# The path to show, of all lines of /proc/PID/cgroup. *systemd: it is in the v1 hierarchy name=systemd, not in cgroup2.
cdef span_t cgroup_choose(const char *buf, size_t size, bint *systemd) noexcept nogil
