"""Which program ran in which process: by its identity, also after it has ended."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from posix_pthread cimport pthread_mutex_t
from nfct_fast.processes.process_event cimport process_event, process_id, process_ring

from nfct_fast.processes.process cimport ancestor_t, process_t

# One program in one process, from fork or execve on. The table's own; looked at with its lock held.
ctypedef struct program_t:
    program_t *chain         # the next older one in the same slot
    program_t *newer         # in its list
    program_t *older
    process_id id            # exec 0 and start 0 as long as `is_unbound`
    uint64_t ticks           # id.start as /proc/PID/stat has it
    int32_t ppid
    uint32_t uid
    uint32_t gid
    uint32_t login_uid
    uint32_t ns_pid
    char comm[16]
    uint64_t arg_start
    process_t *facts         # exe and command line; a reference
    process_t *title         # what it has written over its command line since; NULL: nothing
    process_t *pending_title       # the same, read but not believed yet
    ancestor_t *ancestors    # what it was forked from; a reference
    ancestor_t *node         # itself, as its children have it; a reference or NULL
    int64_t since            # CLOCK_BOOTTIME ns: from when on it ran; 0 where an identity tells more
    int64_t until            # and how long; 0: it still runs
    int64_t found_at         # CLOCK_MONOTONIC ns: when it was last asked for,
    int64_t title_read_at        # and its title last looked at
    uint64_t bytes
    uint64_t lost            # of a program that was read: how many events had been lost by then
    bint is_read             # from /proc, not told by the kernel
    bint is_fresh            # and the events of before it was read have not all been looked at
    bint is_unbound          # from /proc, and its exec id is not known: that of the first note or event, if no execve came before
    bint is_forked           # it executed nothing itself
    bint has_ended           # or has executed another program

ctypedef struct programs_list_t:
    program_t *newest
    program_t *oldest

# Bounded in number and bytes: what has ended goes first, the longest ago first. Any thread may call any method.
cdef class History:
    cdef program_t **_slots
    cdef uint32_t _mask
    cdef uint32_t _limit
    cdef uint64_t _bytes_limit
    cdef programs_list_t _running        # those whose identity is known,
    cdef programs_list_t _unbound        # and those that were read and have no exec id yet
    cdef programs_list_t _ended
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef int64_t _tick                   # ns
    cdef readonly uint32_t count
    cdef readonly uint64_t bytes
    cdef readonly uint64_t evicted       # pushed out for want of room
    cdef readonly uint64_t forks, execs, exits
    cdef uint32_t _fresh_count                 # how many are
    cdef uint64_t _lost
    cdef int64_t _reported_until                   # by the proc connector: all until then
    cdef bint _reporting
    cdef readonly uint64_t changes       # changes whenever what is known of a program does

    # Take in all the kernel has told until now, and that it lost `lost` events in all: what has no exec id yet may have executed
    # something else since. One thread only; no system call.
    cdef void drain(self, process_ring *ring, uint64_t lost) noexcept nogil
    # What was read of a living process in /proc, when `lost` events had been lost. Takes no reference.
    cdef void add(self, const process_t *process, uint64_t lost) noexcept nogil
    # The program with this identity, as facts to build a process from; False if it is not known. The caller drops facts.ancestors
    # and *holder, which has the text.
    cdef bint find(self, const process_id *id, process_t *facts, process_t **holder) noexcept nogil
    # The program that ran under this pid at `when`, CLOCK_BOOTTIME ns, where notes have no identity.
    cdef bint find_at(self, int32_t pid, int64_t when, process_t *facts, process_t **holder) noexcept nogil
    # The events where only the proc connector tells of them; times are CLOCK_BOOTTIME ns. What is executed was read
    # since, until `read_by`; NULL: it could not be.
    # Something is being told, or has been; all that had happened by `when` has been, unless something still is: False then.
    cdef void reporting(self, bint reporting) noexcept nogil
    cdef bint has_reported(self, int64_t when) noexcept nogil
    cdef void on_fork(self, int32_t pid, int32_t ppid, int64_t when) noexcept nogil
    cdef void on_exec(self, int32_t pid, int64_t when, const process_t *process, int64_t read_by) noexcept nogil
    cdef void on_exit(self, int32_t pid, int64_t when) noexcept nogil
    # The exec id of the program that a living process runs; False if the kernel has not told of it.
    cdef bint running(self, const process_t *process, uint32_t *exec_id) noexcept nogil
    cdef bint runs(self, const process_t *process, uint32_t exec_id) noexcept nogil
    # Those that were named of late and not looked at since `before`: pids into out, how many.
    cdef int titles_due(self, int64_t found_after, int64_t read_before, int32_t *out, int room) noexcept nogil
    # What /proc shows of one of them now.
    cdef void check_title(self, const process_t *process) noexcept nogil
