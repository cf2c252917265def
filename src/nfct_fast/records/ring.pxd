from libc.stdint cimport uint64_t
from posix_pthread cimport pthread_mutex_t
from nfct_fast.records.record cimport record_t

# One thread puts, one other takes; each works on its part of the records in place, without the lock.
cdef class Ring:
    cdef record_t *records
    cdef int capacity
    cdef int head                # where the next record goes
    cdef int tail                # the oldest one not yet taken
    cdef int count
    cdef bint taker_waits
    cdef bint putter_waits
    cdef bint ended
    cdef pthread_mutex_t mutex
    cdef int filled              # eventfd: there is something for a taker that waits, or the end
    cdef int freed               # eventfd: there is room again for a putter that waits
    cdef int peak                # records it has held at once

    cdef record_t *room(self, int *count) noexcept nogil
    cdef int publish(self, int count) noexcept nogil
    cdef record_t *take(self, int *count) noexcept nogil
    cdef int release(self, int count) noexcept nogil
    cdef int end(self) noexcept nogil
    cdef void close(self) noexcept nogil
