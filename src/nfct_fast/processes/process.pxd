"""The facts about one process."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.processes.cgroup cimport cgroup_names_t, span_t
from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.processes.identity cimport Identity
from nfct_fast.processes.cmdline_reader cimport CommandLineReader

cdef enum:    # process_t.has: which facts are known
    PROCESS_PPID = 1
    PROCESS_IDS = 2          # uid and gid
    PROCESS_COMM = 4
    PROCESS_EXE = 8
    PROCESS_CMDLINE = 16     # empty for a kernel thread; not known during execve and exit
    PROCESS_CGROUP = 32
    PROCESS_NETNS = 64
    PROCESS_EXE_FILE = 128   # exe_dev and exe_inode
    PROCESS_LOGIN = 512      # login_uid
    PROCESS_FORKED = 1024    # it has executed nothing itself: exe and cmdline are those of its ancestor
    PROCESS_UNREAD = 256     # reading the command line was given up: to be tried again later

# A process as it was when it forked, and its own ancestors. Immutable; references are counted, from any thread.
ctypedef struct ancestor_t:
    ancestor_t *next         # the process it was forked from; NULL: not known, or beyond ANCESTORS
    int refs
    int depth                # number of its ancestors
    int32_t pid
    uint64_t start_ns
    uint64_t bytes           # of memory, with all its ancestors
    span_t comm
    span_t exe               # size 0: not known, or longer than ANCESTOR_EXE

cdef enum:
    ANCESTORS = 16           # ancestors that are kept of each process, at least
    ANCESTOR_EXE = 256       # bytes of an ancestor's executable that are kept, at most

# Immutable once it is made, in one block of memory; references are counted, from any thread.
ctypedef struct process_t:
    int refs
    int32_t pid              # of the process (thread group), whichever of its threads was read
    int32_t ppid
    uint32_t uid             # real
    uint32_t gid
    uint32_t has             # PROCESS_*: which facts are known
    uint64_t start           # clock ticks after boot; with pid it identifies the process
    uint64_t netns           # inode of its network namespace
    uint64_t cmdline_size    # of the whole command line; more than cmdline.size if that was cut
    span_t comm
    span_t exe
    span_t cmdline           # arguments separated by a NUL, without one after the last
    span_t cgroup
    size_t cgroup_trusted    # bytes of `cgroup` that name levels which the host's root made
    cgroup_names_t names     # points into `cgroup`
    # The executable's file, whatever its path is. They come from the kernel's event: stat(2) of /proc/PID/exe may wait
    # for a file server that a user runs (FUSE) or that is dead (NFS).
    uint64_t exe_dev         # st_dev
    uint64_t exe_inode       # st_ino
    uint64_t program_hash    # differs after execve, see stat_t; also after a change of the effective ids
    uint64_t arg_start       # address of the arguments in its memory; 0: not known
    uint64_t start_ns        # start_boottime: CLOCK_BOOTTIME ns; 0: only `start` is known
    uint32_t login_uid       # of audit
    uint32_t ns_pid          # its pid in its own pid namespace; 0: that is the initial one, or it is not known
    ancestor_t *ancestors    # a reference; NULL: not known
    uint64_t bytes           # of memory, without the ancestors
    # As it is shown where command lines are redacted: another one, a reference, or this one itself. NULL: nobody has
    # asked yet. Only the thread that takes records looks at it and writes it; see redactor.pyx.
    process_t *shown

cdef process_t *process_take(process_t *process) noexcept nogil    # one more reference; NULL stays NULL
cdef void process_drop(process_t *process) noexcept nogil          # one less; from any thread, without the GIL

# A new ancestor with copies of the text. Takes over the reference `next`. NULL without memory.
cdef ancestor_t *ancestor_build(int32_t pid, uint64_t start_ns, span_t comm, span_t exe,
                                ancestor_t *next) noexcept nogil
cdef ancestor_t *ancestor_take(ancestor_t *ancestor) noexcept nogil
cdef void ancestor_drop(ancestor_t *ancestor) noexcept nogil

# A copy of the facts and the text that they point to, in one block: a reference, NULL without memory.
cdef process_t *process_build(const process_t *facts) noexcept nogil

# Read /proc/PID below `root`, an O_PATH descriptor of the proc mount: a new reference, or NULL if the process is gone
# or hidden, or without memory (*error is -errno). Waits 20 ms at most for the command line, of which it keeps
# cmdline_limit bytes; nothing else that it reads can wait for the process.
cdef process_t *process_read(int root, int32_t pid, CommandLineReader lines, CgroupFilesystem cgroups,
                             uint32_t cmdline_limit, int *error) noexcept nogil

# Complete a process whose command line could not be read with that of `known`, if that is the same program of the same
# process. Takes over the reference to `process`, and returns one to the result.
cdef process_t *process_completed(process_t *process, const process_t *known) noexcept nogil

# A process of which only the cgroup is known, perhaps only from its socket: pid is 0. NULL without memory.
cdef process_t *process_of_cgroup(const char *path, size_t size, size_t trusted) noexcept nogil

# What process_check() finds.
cdef enum:
    PROCESS_SAME = 1
    PROCESS_CHANGED = 2      # its program, name or effective ids have changed
    PROCESS_ENDING = 3       # it is exiting or a zombie: what is known stays true, and could not be read again
    PROCESS_GONE = 4         # there is no such process, or another one has its pid

# Whether the process still is what was read: PROCESS_*, or -errno if that cannot be told. Takes one read of stat.
cdef int process_check(int root, const process_t *process) noexcept nogil

cdef class Process:
    cdef process_t *_process
    cdef Identity _identity
    cdef Identity _host(self)

# Everything that is known of a process, as a tuple of values that can be compared, hashed and pickled; and back again:
# a new reference.
cdef tuple process_state(const process_t *process)
cdef process_t *process_restore(tuple state) except NULL

# A Python object that takes over the caller's reference. None for NULL.
cdef object process_object(process_t *process, Identity identity=*)
