"""The programs that processes ran, by identity, including those that have ended."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from stdatomic cimport atomic_uint64_t

from posix_pthread cimport pthread_mutex_t
from nfct_fast.processes.process_event cimport process_event, process_id, process_ring

from nfct_fast.processes.process cimport ancestor_t, process_t

# One program in one process, from its fork or execve on. It belongs to a History, whose lock protects it.
ctypedef struct program_t:
    program_t *chain         # the next older program in the same slot of the hash
    program_t *newer         # the next newer program in the same list
    program_t *older         # the next older program in the same list
    process_id id            # the program's identity; exec and start are unknown while `is_unbound`
    uint64_t ticks           # start time of the process as in /proc/PID/stat, clock ticks since boot
    int32_t ppid
    uint32_t uid
    uint32_t gid
    uint32_t login_uid       # audit login uid; NO_LOGIN: not set
    uint32_t ns_pid          # pid in the process's own pid namespace; 0: that is the initial one
    char comm[16]
    uint64_t arg_start       # address of the program's arguments, which every execve randomizes; 0: not known
    process_t *facts         # executable and command line; a reference
    process_t *title         # the title that the program wrote over its command line; a reference, NULL: none
    process_t *pending_title # a title that was read only once so far; a reference, NULL: none
    ancestor_t *ancestors    # the process it was forked from, linked to its own ancestors; a reference
    ancestor_t *node         # the program itself, as an ancestor of its children; a reference or NULL
    int64_t since            # begin, CLOCK_BOOTTIME ns; only used with the proc connector, which reports no identities
    int64_t until            # end, CLOCK_BOOTTIME ns; 0: it still runs
    int64_t found_at         # CLOCK_MONOTONIC ns at which a flow was last attributed to it
    int64_t title_read_at    # CLOCK_MONOTONIC ns at which its title was last read
    uint64_t bytes           # bytes of memory that count towards the limit
    uint64_t lost            # number of events lost before the program was read from /proc
    bint is_read             # read from /proc: no event reported the program
    bint is_fresh            # read from /proc, while older events may still be unread in the ring
    bint is_unbound          # read from /proc, and its exec id is not known yet
    bint is_forked           # inherited by fork: the process has not called execve since
    bint has_ended           # the process has exited or executed another program

ctypedef struct programs_list_t:
    program_t *newest
    program_t *oldest

# Bounded in number and bytes: the program that ended longest ago is evicted first. Any thread may call any method.
cdef class History:
    cdef program_t **_slots              # hash of programs by pid
    cdef uint32_t _mask                  # slots of the hash - 1
    cdef uint32_t _limit                 # largest `count`
    cdef uint64_t _bytes_limit
    cdef programs_list_t _running        # programs that run and whose identity is known
    cdef programs_list_t _unbound        # programs that run and whose exec id is not known yet
    cdef programs_list_t _ended
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef int64_t _tick                   # length of a clock tick in ns
    cdef readonly uint32_t count         # programs held
    cdef readonly uint64_t bytes         # bytes of memory used
    cdef readonly uint64_t evicted       # programs evicted because a limit was reached
    cdef readonly uint64_t forks, execs, exits
    cdef uint32_t _fresh_count           # programs with `is_fresh` set
    cdef uint64_t _lost                  # events lost in total, as of the last drain()
    cdef int64_t _reported_until         # CLOCK_BOOTTIME ns up to which the proc connector has reported all events
    cdef bint _reporting                 # the proc connector is reporting events now
    cdef readonly atomic_uint64_t changes   # incremented whenever what is known of a program changes

    # Process all events in the ring. lost: how many events the kernel has lost in total. After a further loss, programs
    # without an exec id are forgotten, as they may have executed something else. One thread only; no system call.
    cdef void drain(self, process_ring *ring, uint64_t lost) noexcept nogil
    # Add a living process that was read from /proc when `lost` events had been lost. Takes no reference.
    cdef void add(self, const process_t *process, uint64_t lost) noexcept nogil
    # Find the program with this identity, and fill in facts to build a process from. Return False if it is not known.
    # The caller drops two references: facts.ancestors, and *holder, which owns the text.
    cdef bint find(self, const process_id *id, process_t *facts, process_t **holder) noexcept nogil
    # The same by pid and time (CLOCK_BOOTTIME ns), for notes without an identity.
    cdef bint find_at(self, int32_t pid, int64_t when, process_t *facts, process_t **holder) noexcept nogil

    # The next five are for the proc connector. Times are CLOCK_BOOTTIME ns.
    # Set whether events are being reported.
    cdef void reporting(self, bint reporting) noexcept nogil
    # Whether all events until `when` have been reported; False while some may be missing.
    cdef bint has_reported(self, int64_t when) noexcept nogil
    cdef void on_fork(self, int32_t pid, int32_t ppid, int64_t when) noexcept nogil
    # process: the process as read after the execve, NULL if it could not be read. read_by: when reading it ended.
    cdef void on_exec(self, int32_t pid, int64_t when, const process_t *process, int64_t read_by) noexcept nogil
    cdef void on_exit(self, int32_t pid, int64_t when) noexcept nogil

    # Find the exec id of the program that a living process runs. Return False if no event has reported it.
    cdef bint running(self, const process_t *process, uint32_t *exec_id) noexcept nogil
    # Whether the process still runs the program with that exec id.
    cdef bint runs(self, const process_t *process, uint32_t exec_id) noexcept nogil
    # Find processes to which a flow was attributed after `found_after`, and whose title was last read before
    # `read_before`. Write up to `room` pids to `out` and return how many.
    cdef int titles_due(self, int64_t found_after, int64_t read_before, int32_t *out, int room) noexcept nogil
    # Compare the title of such a process with the one that was read now.
    cdef void check_title(self, const process_t *process) noexcept nogil
