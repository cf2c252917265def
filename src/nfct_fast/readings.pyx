"""What was read of new programs, kept until their execve is told in its order.

Whoever reads first announces it, so that nothing is read twice. What nobody asks for is replaced by what comes later.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t
from posix.time cimport nanosleep, timespec

from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock

from .mutex cimport mutex_make
from .process cimport process_drop, process_t
from .procfs cimport procfs_monotonic_ns

cdef enum:
    # A reading takes some 100 us. But a program that is moved to another processor and pushed aside there holds the lock
    # of its memory for as long: 8 to 22 ms were seen with six programs on two processors, and to read it elsewhere
    # would only wait for the same.
    PATIENCE_NS = 50000000


cdef reading_t *find(Readings self, int32_t pid, int64_t when) noexcept nogil:
    cdef int i
    for i in range(256):
        if self.at[i].when == when and self.at[i].pid == pid:
            return &self.at[i]
    return NULL


cdef void add(Readings self, int32_t pid, int64_t when, reading_state state) noexcept nogil:
    cdef reading_t *reading = &self.at[self.next % 256]
    self.next += 1
    process_drop(reading.process)
    reading.process, reading.pid, reading.when, reading.state = NULL, pid, when, state


@cython.final
@cython.auto_pickle(False)
cdef class Readings:
    """The latest 256 readings, each of one pid and time of execve."""

    def __cinit__(self):
        if not mutex_make(&self.mutex):
            raise MemoryError
        self.mutex_made = True

    def __dealloc__(self):
        cdef int i
        for i in range(256):
            process_drop(self.at[i].process)
        if self.mutex_made:
            pthread_mutex_destroy(&self.mutex)

    cdef bint claim(self, int32_t pid, int64_t when) noexcept nogil:
        cdef bint wanted
        pthread_mutex_lock(&self.mutex)
        wanted = find(self, pid, when) == NULL
        if wanted:
            add(self, pid, when, READING)
        pthread_mutex_unlock(&self.mutex)
        return wanted

    cdef void put(self, int32_t pid, int64_t when, process_t *process, int64_t begun, int64_t ended) noexcept nogil:
        cdef reading_t *reading
        pthread_mutex_lock(&self.mutex)
        reading = find(self, pid, when)
        if reading != NULL and reading.state == READING:
            reading.process, reading.begun, reading.ended, reading.state = process, begun, ended, READ
            process = NULL
        pthread_mutex_unlock(&self.mutex)
        process_drop(process)

    cdef process_t *take(self, int32_t pid, int64_t when, int64_t *begun, int64_t *ended) noexcept nogil:
        cdef int64_t end = procfs_monotonic_ns() + PATIENCE_NS
        cdef process_t *process = NULL
        cdef reading_t *reading
        cdef bint under_way
        cdef timespec pause
        pause.tv_sec, pause.tv_nsec = 0, 20000
        while True:
            pthread_mutex_lock(&self.mutex)
            reading = find(self, pid, when)
            under_way = reading != NULL and reading.state == READING and procfs_monotonic_ns() < end
            if reading == NULL:
                add(self, pid, when, TAKEN)
            elif not under_way:
                if reading.state == READ:
                    process, begun[0], ended[0] = reading.process, reading.begun, reading.ended
                    reading.process = NULL
                reading.state = TAKEN
            pthread_mutex_unlock(&self.mutex)
            if not under_way:
                return process
            nanosleep(&pause, NULL)
