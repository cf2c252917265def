"""What is known of one process."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.processes.cgroup cimport cgroup_names_t, span_t
from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.processes.cmdline_reader cimport CommandLineReader

cdef enum:    # process_t.has: what could be read
    PROCESS_PPID = 1
    PROCESS_IDS = 2          # uid and gid
    PROCESS_COMM = 4
    PROCESS_EXE = 8
    PROCESS_CMDLINE = 16     # size 0 is a kernel thread; not known amid execve and exit
    PROCESS_CGROUP = 32
    PROCESS_NETNS = 64
    PROCESS_EXE_FILE = 128   # exe_dev and exe_inode
    PROCESS_LOGIN = 512      # login_uid
    PROCESS_FORKED = 1024    # it has executed nothing itself: exe and cmdline are those of the process it was forked from
    PROCESS_UNREAD = 256     # there is a command line perhaps, but reading it was given up: to be asked for again later

# An ancestor at the time it forked, and those above it. Immutable; shared by counting references, from any thread.
ctypedef struct ancestor_t:
    ancestor_t *next         # the one it was forked from; NULL: not known, or beyond ANCESTORS
    int refs
    int depth                # how many there are above it
    int32_t pid
    uint64_t start_ns
    uint64_t bytes           # of it and all above it
    span_t comm
    span_t exe               # size 0: not known, or longer than ANCESTOR_EXE

cdef enum:
    ANCESTORS = 16           # that are kept of each process at least
    ANCESTOR_EXE = 256

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
    size_t cgroup_trusted    # how much of it names levels that the host's root made
    cgroup_names_t names     # point into cgroup
    # The program's file, whatever its path says; st_dev and st_ino. stat(2) of /proc/PID/exe may ask a server that a user
    # runs (FUSE) or that is dead (NFS): these come from who can tell without.
    uint64_t exe_dev
    uint64_t exe_inode
    uint64_t program_hash           # differs after execve
    uint64_t arg_start       # where the arguments stand in its memory; 0: not known
    uint64_t start_ns        # CLOCK_BOOTTIME ns, as the kernel has it; 0: only `start` is known
    uint32_t login_uid
    uint32_t ns_pid          # its pid in its own pid namespace; 0: that is the initial one, or it is not known
    ancestor_t *ancestors    # a reference; NULL: not known
    uint64_t bytes           # of the block

cdef process_t *process_take(process_t *process) noexcept nogil    # one more reference; NULL stays NULL
cdef void process_drop(process_t *process) noexcept nogil          # one less; from any thread, without the GIL

# As a block with a copy of the text; takes over the reference `next`. NULL without memory.
cdef ancestor_t *ancestor_build(int32_t pid, uint64_t start_ns, span_t comm, span_t exe, ancestor_t *next) noexcept nogil
cdef ancestor_t *ancestor_take(ancestor_t *ancestor) noexcept nogil
cdef void ancestor_drop(ancestor_t *ancestor) noexcept nogil

# One block with a copy of facts and the text they point to; a reference. NULL without memory.
cdef process_t *process_build(const process_t *facts) noexcept nogil

# Reads /proc/PID below an O_PATH handle of the proc mount: a new reference, or NULL if the process is gone, hidden
# or there is no memory (*error is the errno, negated). The command line, of which cmdline_limit bytes are kept, is waited for
# 20 ms at most; nothing else that is read can wait for the process.
cdef process_t *process_read(int root, int32_t pid, CommandLineReader lines, CgroupFilesystem cgroups, uint32_t cmdline_limit,
                             int *error) noexcept nogil

# The process, or in its stead (its reference is taken) one with the command line of `known`, if that is the same program of
# the same process and the command line could not be read.
cdef process_t *process_completed(process_t *process, const process_t *known) noexcept nogil

# A process of which nothing is known but its cgroup, or that of a socket: pid is 0. NULL: no memory.
cdef process_t *process_of_cgroup(const char *path, size_t size, size_t trusted) noexcept nogil

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
