"""What was read of new programs, kept until their execve is told in its order."""
from libc.stdint cimport int32_t, int64_t, uint32_t
from posix_pthread cimport pthread_mutex_t

from .process cimport process_t

cdef enum reading_state:
    READING = 1
    READ
    TAKEN

# What /proc showed of `pid` after its execve at `when`. All times are CLOCK_MONOTONIC ns.
cdef struct reading_t:
    process_t *process       # while it is READ
    int64_t when
    int64_t begun
    int64_t ended
    int32_t pid
    reading_state state

# Any thread may call any method.
cdef class Readings:
    cdef reading_t at[256]   # a ring
    cdef uint32_t next
    cdef pthread_mutex_t mutex
    cdef bint mutex_made

    # Before reading: False if that execve was taken already, and nobody will ask for it any more.
    cdef bint claim(self, int32_t pid, int64_t when) noexcept nogil
    # After it. Takes over the reference, which may be NULL.
    cdef void put(self, int32_t pid, int64_t when, process_t *process, int64_t begun, int64_t ended) noexcept nogil
    # The reading, and when it was made; NULL if there is none. Waits up to some ms for one that is under way.
    cdef process_t *take(self, int32_t pid, int64_t when, int64_t *begun, int64_t *ended) noexcept nogil
