"""The facts about one process."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.processes.cgroup cimport cgroup_names_t, span_t
from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.processes.cmdline_reader cimport CommandLineReader

cdef enum:    # process_t.has: which facts are known
    PROCESS_PPID = 1
    PROCESS_IDS = 2          # uid and gid
    PROCESS_COMM = 4
    PROCESS_EXE = 8
    PROCESS_CMDLINE = 16     # cmdline, which is empty for a kernel thread; not known during execve and exit
    PROCESS_CGROUP = 32
    PROCESS_NETNS = 64
    PROCESS_EXE_FILE = 128   # exe_dev and exe_inode
    PROCESS_LOGIN = 512      # login_uid
    PROCESS_FORKED = 1024    # no fact: the process never called execve, so exe and cmdline are those of its ancestor
    PROCESS_UNREAD = 256     # no fact: reading the command line was given up, and is to be tried again later

# A process as it was when it forked, and its own ancestors. Immutable. References are counted atomically.
ctypedef struct ancestor_t:
    ancestor_t *next         # the process that this one was forked from; NULL: not known, or beyond ANCESTORS
    int refs
    int depth                # number of its ancestors
    int32_t pid
    uint64_t start_ns
    uint64_t bytes           # bytes of memory of this process and all its ancestors
    span_t comm
    span_t exe               # path of the executable; size 0: not known, or longer than ANCESTOR_EXE

cdef enum:
    ANCESTORS = 16           # the nearest ancestors of a process, of which at least this many are kept
    ANCESTOR_EXE = 256       # longest path of an ancestor's executable that is kept, in bytes

# A process, in one block of memory. Immutable once it is made. References are counted atomically.
ctypedef struct process_t:
    int refs
    int32_t pid              # id of the process (thread group), whichever of its threads was read
    int32_t ppid
    uint32_t uid             # real user id
    uint32_t gid
    uint32_t has             # PROCESS_*: which facts are known
    uint64_t start           # start time, clock ticks since boot; with pid it identifies the process
    uint64_t netns           # inode of its network namespace
    uint64_t cmdline_size    # bytes of the whole command line; more than cmdline.size if `cmdline` was cut
    span_t comm
    span_t exe
    span_t cmdline           # arguments, separated by NULs, with none after the last
    span_t cgroup
    size_t cgroup_trusted    # leading bytes of `cgroup` that name levels which the host's root made
    cgroup_names_t names     # unit, container etc., which point into `cgroup`
    # The next two identify the executed file, whatever its path. They come from the kernel's event, as stat(2) of
    # /proc/PID/exe may block on a file server that a user runs (FUSE) or that is dead (NFS).
    uint64_t exe_dev         # st_dev of the executed file
    uint64_t exe_inode       # st_ino of the executed file
    uint64_t program_hash    # changes with execve (see stat_t) and with the effective ids
    uint64_t arg_start       # address of the arguments in the process's memory; 0: not known
    uint64_t start_ns        # start time (task_struct.start_boottime), CLOCK_BOOTTIME ns; 0: only `start` is known
    uint32_t login_uid       # audit login uid
    uint32_t ns_pid          # pid in the process's own pid namespace; 0: that is the initial one, or it is not known
    ancestor_t *ancestors    # the process it was forked from, a reference; NULL: not known
    uint64_t bytes           # bytes of memory, without those of the ancestors
    # The next two are changed by LiveFlows only, in its one thread.
    uint32_t live_flows      # live flows that keep this process
    uint32_t charged         # bytes that LiveFlows counts for it
    uint64_t subject         # changed by FirstSeen only, in the same thread: what it is to that; 0: not asked yet
    # The next three are changed by Aggregator only, in the thread that takes records.
    uint64_t digest          # of what it says, see owner_digest(); 0: not made yet
    uint32_t groups          # groups of flows that keep this process
    uint32_t group_charge    # bytes that are counted for it there
    # As it is shown where command lines are redacted: another one, a reference, or this one itself. NULL: nobody has
    # asked yet. Only the thread that takes records looks at it and writes it; see redactor.pyx.
    process_t *shown

cdef process_t *process_take(process_t *process) noexcept nogil    # add a reference; NULL stays NULL
cdef void process_drop(process_t *process) noexcept nogil          # drop a reference; from any thread

# Make an ancestor with copies of the text. Takes over the reference `next`. NULL if memory is exhausted.
cdef ancestor_t *ancestor_build(int32_t pid, uint64_t start_ns, span_t comm, span_t exe,
                                ancestor_t *next) noexcept nogil
cdef ancestor_t *ancestor_take(ancestor_t *ancestor) noexcept nogil
cdef void ancestor_drop(ancestor_t *ancestor) noexcept nogil

# Copy the facts, and the text they point to, into one block. Return a reference; NULL if memory is exhausted.
cdef process_t *process_build(const process_t *facts) noexcept nogil

# Read /proc/PID below `root`, an O_PATH descriptor of the proc mount. Return a new reference, or NULL with -errno in
# *error: the process is gone or hidden, or memory is exhausted. Waits at most 20 ms for the command line, of which it
# keeps cmdline_limit bytes; the process cannot make any other read block.
cdef process_t *process_read(int root, int32_t pid, CommandLineReader lines, CgroupFilesystem cgroups,
                             uint32_t cmdline_limit, int *error) noexcept nogil

# If the command line of `process` could not be read, take that of `known`, provided it is the same program in the same
# process. Takes over the reference to `process`, and returns a reference to the result.
cdef process_t *process_completed(process_t *process, const process_t *known) noexcept nogil

# Make a process of which only the cgroup is known; its pid is 0. NULL if memory is exhausted.
cdef process_t *process_of_cgroup(const char *path, size_t size, size_t trusted) noexcept nogil

# Results of process_check().
cdef enum:
    PROCESS_SAME = 1
    PROCESS_CHANGED = 2      # its program, name or effective ids have changed
    PROCESS_ENDING = 3       # it is exiting or a zombie: what is known stays true, and cannot be read again
    PROCESS_GONE = 4         # there is no such process, or another one has its pid

# Compare a process with what was read of it. Return PROCESS_*, or -errno if it cannot be read. Reads only its stat
# file.
cdef int process_check(int root, const process_t *process) noexcept nogil
