"""A bounded ring of records between the reading thread and the consumer.

The producer waits only while the ring is full, the consumer only while it is empty; an eventfd then wakes them. The
mutex is taken once per batch, to move numbers only.
"""
cimport cython
from libc.stdlib cimport calloc, free
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock
from nfct_fast.records.record cimport record_drop


@cython.final
@cython.auto_pickle(False)
cdef class Ring:
    """A ring of up to `capacity` records, which must outlive both threads.

    Raises:
        MemoryError: There is no memory for the records.
        OSError: An eventfd cannot be made.
    """

    def __cinit__(self, int capacity):
        if pthread_mutex_init(&self.mutex, NULL) != 0:
            raise MemoryError("mutex")
        # Untouched pages take no memory: while the consumer keeps up, only the first few are used.
        self.records = <record_t *>calloc(capacity, sizeof(record_t))
        if self.records == NULL:
            raise MemoryError("ring")
        self.capacity = capacity
        self.consumer_waits = True
        self.filled = Wakeup()
        self.freed = Wakeup()

    def __dealloc__(self):
        cdef int i
        if self.records != NULL:
            for i in range(self.count):
                record_drop(&self.records[(self.tail + i) % self.capacity])
        free(self.records)
        pthread_mutex_destroy(&self.mutex)

    def close(self) -> None:
        """Close both descriptors; nobody may use the ring any more. Closing twice is harmless."""
        self.filled.close()
        self.freed.close()

    cdef record_t *room(self, int *count) noexcept nogil:
        """Return contiguous free records for the producer, their number in *count; 0 if it must wait for `freed`.

        The next call may return another piece, so publish() the records put into this one first.
        """
        cdef record_t *result
        pthread_mutex_lock(&self.mutex)
        if self.count == 0:
            self.head = self.tail = 0
        count[0] = min(self.capacity - self.head, self.capacity - self.count)
        self.producer_waits = count[0] == 0
        if self.producer_waits:
            self.freed.drain()
        result = self.records + self.head
        pthread_mutex_unlock(&self.mutex)
        return result

    cdef void publish(self, int count) noexcept nogil:
        """Hand the first `count` records of room() to the consumer."""
        cdef bint wake
        pthread_mutex_lock(&self.mutex)
        self.head = (self.head + count) % self.capacity
        self.count += count
        self.peak = max(self.peak, self.count)
        wake = self.consumer_waits and count > 0
        if wake:
            self.consumer_waits = False
        pthread_mutex_unlock(&self.mutex)
        if wake:
            self.filled.notify()

    cdef record_t *take(self, int *count) noexcept nogil:
        """Return the oldest records in one piece, their number in *count; 0 if the consumer must wait for `filled`.

        *count is -1 if no more will come. The records stay the consumer's until release().
        """
        cdef record_t *result
        pthread_mutex_lock(&self.mutex)
        count[0] = min(self.count, self.capacity - self.tail)
        if count[0] == 0:
            if self.ended:
                count[0] = -1
            else:
                self.consumer_waits = True
                self.filled.drain()
        result = self.records + self.tail
        pthread_mutex_unlock(&self.mutex)
        return result

    cdef void release(self, int count) noexcept nogil:
        """Give the first `count` records of take() back, their references dropped."""
        cdef bint wake
        pthread_mutex_lock(&self.mutex)
        self.tail = (self.tail + count) % self.capacity
        self.count -= count
        # Wake a waiting producer only when half the ring is free, not at every batch.
        wake = self.producer_waits and self.count <= self.capacity // 2
        if wake:
            self.producer_waits = False
        pthread_mutex_unlock(&self.mutex)
        if wake:
            self.freed.notify()

    cdef void end(self) noexcept nogil:
        """Tell the consumer that no more records will come, and wake it."""
        pthread_mutex_lock(&self.mutex)
        self.ended = True
        self.consumer_waits = False
        pthread_mutex_unlock(&self.mutex)
        self.filled.notify()
