"""The cache of process facts by pid and start time, and which program ran under a pid at what time."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from posix_pthread cimport pthread_mutex_t

from .process cimport process_t
from .processtable cimport entries_t

cdef enum:
    # execve shows the new program in /proc before the kernel stamps its event: usually by microseconds, longer if the
    # process has to wait for a CPU between. A reading less than this before an event may belong behind it.
    EXEC_SHOWN_EARLY = 5000000    # ns

# How far what is recalled goes, CLOCK_MONOTONIC ns.
cdef struct recall_t:
    int64_t since            # it surely ran from then
    int64_t to               # until then
    bint aged                # lives, and was read longer ago than `max_age`
    bint inherited           # what its parent was: it has not been read itself

# Any thread may call any method. The lock is never held while /proc is read.
cdef class ProcessCache:
    cdef int _root
    cdef uint32_t _cmdline_limit
    cdef entries_t _entries
    cdef int64_t _max_age, _linger, _tick
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef int64_t _watched    # every fork, exec and exit since then was told; 0: they are not being told
    cdef int64_t _horizon    # and up to then they have been taken in
    cdef int _poke           # an eventfd: whoever takes events in is to look now; -1: nobody does by itself
    cdef bint _telling       # some that were taken from the queue have perhaps not been taken in yet
    cdef int64_t _donated    # the latest reading that a fork before it inherited from
    cdef readonly uint64_t reads, hits

    # The living process: a new reference, or NULL. What was checked no longer than fresh_ns ago is taken as it is;
    # 0 always checks.
    cdef process_t *get(self, int32_t pid, int64_t fresh_ns) noexcept nogil
    # The last process known under this pid, also if it ended up to `linger` ago. Reads nothing. start 0: any.
    cdef process_t *recall(self, int32_t pid, uint64_t start) noexcept nogil
    # Which program ran under this pid at `when`, CLOCK_MONOTONIC ns (bpf_ktime_get_ns): a new reference, or NULL if that
    # is not known for certain. Reads at most one stat, for a process that lives.
    cdef process_t *recall_at(self, int32_t pid, int64_t when) noexcept nogil
    cdef process_t *recall_span(self, int32_t pid, int64_t when, recall_t *recall) noexcept nogil
    # The same, and if need be waits up to `patience` ns for events to be taken in, and reads /proc.
    cdef process_t *at(self, int32_t pid, int64_t when, int64_t patience) noexcept nogil
    # After fork or execve: reads the facts anew. 1 if there are any.
    cdef int remember(self, int32_t pid) noexcept nogil
    # After exit: only `recall` still finds it, for as long as `linger`.
    cdef void forget(self, int32_t pid) noexcept nogil

# For the room that hears of fork, exec and exit. All of these with the lock held.
cdef void cache_lock(ProcessCache self) noexcept nogil
cdef void cache_unlock(ProcessCache self) noexcept nogil
# From when on facts that were just read are true if no event has said otherwise.
cdef int64_t cache_basis(ProcessCache self, const process_t *process, int64_t read_to) noexcept nogil
cdef uint64_t cache_ticks(ProcessCache self, int64_t when) noexcept nogil     # CLOCK_MONOTONIC to /proc/PID/stat's clock
