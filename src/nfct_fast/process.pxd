"""What is known of one process."""
from libc.stdint cimport int32_t, uint32_t, uint64_t

from .cgroup cimport cgroup_names_t, span_t

cdef enum:    # process_t.has: what could be read
    PROCESS_PPID = 1
    PROCESS_IDS = 2          # uid and gid
    PROCESS_COMM = 4
    PROCESS_EXE = 8
    PROCESS_CMDLINE = 16     # size 0 is a kernel thread; not known amid execve and exit
    PROCESS_CGROUP = 32
    PROCESS_NETNS = 64

# Immutable once made, in one block of memory; shared by counting references, from any thread.
ctypedef struct process_t:
    int refs
    int32_t pid              # the process (thread group), whichever of its threads was asked for
    int32_t ppid
    uint32_t uid             # real
    uint32_t gid
    uint32_t has
    uint64_t start           # clock ticks after boot: with pid, who it is
    uint64_t netns           # inode of its network namespace
    uint64_t cmdline_size    # of the whole command line; more than cmdline.size if that was cut
    span_t comm
    span_t exe
    span_t cmdline           # arguments with a NUL between them, none behind the last
    span_t cgroup
    cgroup_names_t names     # point into cgroup
    uint64_t image           # differs after execve
    uint64_t bytes           # of the block

cdef process_t *process_take(process_t *process) noexcept nogil    # one more reference; NULL stays NULL
cdef void process_drop(process_t *process) noexcept nogil          # one less; from any thread, without the GIL

# One block with a copy of facts and the text they point to; a reference. NULL without memory.
cdef process_t *process_build(const process_t *facts) noexcept nogil

# Reads /proc/PID below an O_PATH handle of the proc mount: a new reference, or NULL if the process is gone, hidden
# or there is no memory (*error is the errno, negated). cmdline_limit: bytes of the command line to keep.
cdef process_t *process_read(int root, int32_t pid, uint32_t cmdline_limit, int *error) noexcept nogil

# What somebody noted of a process that may be gone: comm is terminated or 16 bytes long, size 0 is no cgroup.
cdef process_t *process_of_note(int32_t pid, uint32_t uid, uint32_t gid, const char *comm, const char *cgroup,
                                size_t size) noexcept nogil

# A process of which nothing is known but its cgroup, or that of a socket: pid is 0. NULL: no memory.
cdef process_t *process_of_cgroup(const char *path, size_t size) noexcept nogil

# Is it still the process and the program that was read? Costs one read of stat.
cdef enum:
    PROCESS_SAME = 1
    PROCESS_CHANGED = 2      # execve, or other names or ids since
    PROCESS_ENDING = 3       # exiting or a zombie: what is known stays true, and could not be read again
    PROCESS_GONE = 4         # no such process, or another one under its pid

cdef int process_check(int root, const process_t *process) noexcept nogil    # or -errno: cannot be told

cdef class Process:
    cdef process_t *_process

# A Python object that takes over the caller's reference. None for NULL.
cdef object process_object(process_t *process)
