"""Which program ran in which process: by its identity, also after it has ended."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from posix_pthread cimport pthread_mutex_t
from nfct_fast.processes.process_event cimport process_event, process_id, process_ring

from nfct_fast.processes.process cimport ancestor_t, process_t

# One program in one process, from fork or execve on. It belongs to History, and is accessed with its lock held.
ctypedef struct program_t:
    program_t *chain         # the next older program in the same slot of the hash
    program_t *newer         # the next newer one in its list
    program_t *older         # the next older one in its list
    process_id id            # its identity; without exec and start as long as `is_unbound`
    uint64_t ticks           # start time as in /proc/PID/stat: clock ticks after boot
    int32_t ppid
    uint32_t uid
    uint32_t gid
    uint32_t login_uid       # NO_LOGIN: none
    uint32_t ns_pid          # pid in its own pid namespace; 0: that is the initial one
    char comm[16]
    uint64_t arg_start       # address of its arguments, which every execve draws anew; 0: not known
    process_t *facts         # executable and command line; a reference
    process_t *title         # the title that it has written over its command line; a reference, NULL: none
    process_t *pending_title # a title that was read only once; a reference, NULL: none
    ancestor_t *ancestors    # the process it was forked from, and the ones above that; a reference
    ancestor_t *node         # itself, as its children refer to it; a reference or NULL
    int64_t since            # CLOCK_BOOTTIME ns: when it began; only with the proc connector, which has no identities
    int64_t until            # CLOCK_BOOTTIME ns: when it ended; 0: it still runs
    int64_t found_at         # CLOCK_MONOTONIC ns: when a flow last found it
    int64_t title_read_at    # CLOCK_MONOTONIC ns: when its title was last read
    uint64_t bytes           # of memory
    uint64_t lost            # events that had been lost when it was read from /proc
    bint is_read             # it was read from /proc; no event reported it
    bint is_fresh            # it was read, and events from before that may still be in the ring
    bint is_unbound          # it was read, and its exec id is not known yet
    bint is_forked           # it is the program of the process it was forked from: this one has executed nothing itself
    bint has_ended           # it has ended, or its process has executed another program

ctypedef struct programs_list_t:
    program_t *newest
    program_t *oldest

# Bounded in number and bytes: what ended longest ago is evicted first. Any thread may call any method.
cdef class History:
    cdef program_t **_slots              # hash by pid
    cdef uint32_t _mask                  # size of the hash - 1
    cdef uint32_t _limit                 # of `count`
    cdef uint64_t _bytes_limit
    cdef programs_list_t _running        # programs that run and whose identity is known
    cdef programs_list_t _unbound        # programs that run and have no exec id yet
    cdef programs_list_t _ended
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef int64_t _tick                   # ns of a clock tick
    cdef readonly uint32_t count         # programs
    cdef readonly uint64_t bytes         # of memory
    cdef readonly uint64_t evicted       # programs evicted for want of room
    cdef readonly uint64_t forks, execs, exits
    cdef uint32_t _fresh_count           # programs that are `is_fresh`
    cdef uint64_t _lost                  # events lost, as of the last drain()
    cdef int64_t _reported_until         # CLOCK_BOOTTIME ns: the proc connector has reported all until then
    cdef bint _reporting                 # the proc connector is reporting events now
    cdef readonly uint64_t changes       # a number that changes whenever what is known of a program changes

    # Take in all events that the kernel has reported. lost: how many it has lost in all; programs without an exec id
    # may have executed something else since, and are forgotten. One thread only; makes no system call.
    cdef void drain(self, process_ring *ring, uint64_t lost) noexcept nogil
    # Add what was read of a living process in /proc when `lost` events had been lost. Takes no reference.
    cdef void add(self, const process_t *process, uint64_t lost) noexcept nogil
    # The program with this identity, as facts to build a process from; False if it is not known. The caller drops
    # facts.ancestors, and *holder, which owns the text.
    cdef bint find(self, const process_id *id, process_t *facts, process_t **holder) noexcept nogil
    # The same by pid and time (CLOCK_BOOTTIME ns), for notes without an identity.
    cdef bint find_at(self, int32_t pid, int64_t when, process_t *facts, process_t **holder) noexcept nogil

    # The next five are for the proc connector; times are CLOCK_BOOTTIME ns.
    # Set whether events are being reported.
    cdef void reporting(self, bint reporting) noexcept nogil
    # Whether all events until `when` have been reported; False if some still are.
    cdef bint has_reported(self, int64_t when) noexcept nogil
    cdef void on_fork(self, int32_t pid, int32_t ppid, int64_t when) noexcept nogil
    # process: the process as it was read after the execve, until `read_by`; NULL: it could not be read.
    cdef void on_exec(self, int32_t pid, int64_t when, const process_t *process, int64_t read_by) noexcept nogil
    cdef void on_exit(self, int32_t pid, int64_t when) noexcept nogil

    # The exec id of the program that a living process runs; False if no event has reported it.
    cdef bint running(self, const process_t *process, uint32_t *exec_id) noexcept nogil
    cdef bint runs(self, const process_t *process, uint32_t exec_id) noexcept nogil
    # Processes found by a flow after `found_after` whose title was not read since `read_before`: pids into out, their
    # number.
    cdef int titles_due(self, int64_t found_after, int64_t read_before, int32_t *out, int room) noexcept nogil
    # Compare the title of one of them with what /proc shows now.
    cdef void check_title(self, const process_t *process) noexcept nogil
