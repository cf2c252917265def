"""A cache of living processes by pid, which are read again when they have changed."""
from libc.stdint cimport int32_t, int64_t, uint64_t
from posix_pthread cimport pthread_mutex_t

from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.process_reader cimport ProcessReader

cdef enum:
    CACHED = 4096

cdef struct cached_t:
    process_t *process
    int64_t read_at          # CLOCK_MONOTONIC ns at which the process was read

# Any thread may call any method. The lock is never held while /proc is read.
cdef class ProcessCache:
    cdef readonly ProcessReader reader
    cdef cached_t _cached[CACHED]
    cdef int64_t _max_age
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef readonly uint64_t reads, hits

    # Return the living process with this pid, a new reference, or NULL.
    cdef process_t *get(self, int32_t pid) noexcept nogil
