"""A bounded ring of records between the thread that reads and the one that writes.

Neither waits for the other until it is full, or empty; then an eventfd wakes it. The lock is held to move numbers
only, once a batch.
"""
cimport cython
from libc.errno cimport EAGAIN, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close as c_close
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_read, eventfd_write
from nfct_fast.records.record cimport record_drop

import os


cdef int _new_eventfd() except -1:
    cdef int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if fd < 0:
        raise OSError(errno, f"eventfd: {os.strerror(errno)}")
    return fd


cdef int _signal(int fd) noexcept nogil:
    # EAGAIN: it has been signalled 2^64-2 times and is readable, which is all that is wanted.
    if eventfd_write(fd, 1) < 0 and errno != EAGAIN:
        return -errno
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class Ring:
    """Room for `capacity` records. Made and freed by whoever owns both threads."""

    def __cinit__(self, int capacity):
        self.filled = self.freed = -1
        if pthread_mutex_init(&self.mutex, NULL) != 0:
            raise MemoryError("mutex")
        # Untouched pages cost nothing: while the taker keeps up, the same few at the front are used.
        self.records = <record_t *>calloc(capacity, sizeof(record_t))
        if self.records == NULL:
            raise MemoryError("ring")
        self.capacity = capacity
        self.taker_waits = True
        self.filled = _new_eventfd()
        self.freed = _new_eventfd()

    def __dealloc__(self):
        cdef int i
        if self.records != NULL:
            for i in range(self.count):
                record_drop(&self.records[(self.tail + i) % self.capacity])
        free(self.records)
        self.close()
        pthread_mutex_destroy(&self.mutex)

    cdef void close(self) noexcept nogil:
        """Close its descriptors: nobody puts, takes or waits any more."""
        if self.filled >= 0:
            c_close(self.filled)
        if self.freed >= 0:
            c_close(self.freed)
        self.filled = self.freed = -1

    cdef record_t *room(self, int *count) noexcept nogil:
        """Free records in one piece for the putter, how many in *count. 0: it waits, and `freed` will wake it.

        The next call may give another piece: what was put into this one must be published before.
        """
        cdef record_t *result
        cdef uint64_t value
        pthread_mutex_lock(&self.mutex)
        if self.count == 0:
            self.head = self.tail = 0
        count[0] = min(self.capacity - self.head, self.capacity - self.count)
        self.putter_waits = count[0] == 0
        if self.putter_waits:
            eventfd_read(self.freed, &value)
        result = self.records + self.head
        pthread_mutex_unlock(&self.mutex)
        return result

    cdef int publish(self, int count) noexcept nogil:
        """The first `count` records of room() are complete; 0 or -errno."""
        cdef bint wake
        pthread_mutex_lock(&self.mutex)
        self.head = (self.head + count) % self.capacity
        self.count += count
        self.peak = max(self.peak, self.count)
        wake = self.taker_waits and count > 0
        if wake:
            self.taker_waits = False
        pthread_mutex_unlock(&self.mutex)
        return _signal(self.filled) if wake else 0

    cdef record_t *take(self, int *count) noexcept nogil:
        """The oldest records in one piece, how many in *count. 0: the taker waits, and `filled` will wake it.

        -1 instead of 0 when none will come any more. They stay the taker's until release().
        """
        cdef record_t *result
        cdef uint64_t value
        pthread_mutex_lock(&self.mutex)
        count[0] = min(self.count, self.capacity - self.tail)
        if count[0] == 0:
            if self.ended:
                count[0] = -1
            else:
                self.taker_waits = True
                eventfd_read(self.filled, &value)
        result = self.records + self.tail
        pthread_mutex_unlock(&self.mutex)
        return result

    cdef int release(self, int count) noexcept nogil:
        """The first `count` records of take() have been dealt with, their references dropped; 0 or -errno."""
        cdef bint wake
        pthread_mutex_lock(&self.mutex)
        self.tail = (self.tail + count) % self.capacity
        self.count -= count
        # A putter that waited is woken when half is free: not for every batch.
        wake = self.putter_waits and self.count <= self.capacity // 2
        if wake:
            self.putter_waits = False
        pthread_mutex_unlock(&self.mutex)
        return _signal(self.freed) if wake else 0

    cdef int end(self) noexcept nogil:
        """Nothing more will be put: wakes a taker that waits; 0 or -errno."""
        pthread_mutex_lock(&self.mutex)
        self.ended = True
        self.taker_waits = False
        pthread_mutex_unlock(&self.mutex)
        return _signal(self.filled)
