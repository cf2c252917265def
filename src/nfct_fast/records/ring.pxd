from posix_pthread cimport pthread_mutex_t
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.records.record cimport record_t

# One producer, one consumer; each works on its part of `records` in place. The mutex protects all the numbers.
cdef class Ring:
    cdef record_t *records
    cdef int capacity            # number of records
    cdef int head                # where the producer's next record goes
    cdef int tail                # the consumer's oldest record
    cdef int count               # records between tail and head
    cdef bint consumer_waits     # the consumer found the ring empty, and wants to be woken
    cdef bint producer_waits     # the producer found the ring full, and wants to be woken
    cdef bint ended              # no more records will come
    cdef pthread_mutex_t mutex
    cdef Wakeup filled           # wakes the consumer: there are records, or the end
    cdef Wakeup freed            # wakes the producer: there is room
    cdef int peak                # the most records held at once

    cdef record_t *room(self, int *count) noexcept nogil
    cdef void publish(self, int count) noexcept nogil
    cdef record_t *take(self, int *count) noexcept nogil
    cdef void release(self, int count) noexcept nogil
    cdef void end(self) noexcept nogil
