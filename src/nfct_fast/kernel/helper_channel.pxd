"""Questions to a process of the program's own, and its answers."""
from libc.stdint cimport uint32_t

from posix_pthread cimport pthread_mutex_t

# What every request begins with.
cdef struct request_head_t:
    uint32_t number                # the answer begins with it, too
    uint32_t processor             # that whoever waits runs on

# In the process, once it has answered: to be there when it is asked next. *here: where it is, at first ~0.
cdef void channel_follow_cpu(uint32_t processor, uint32_t *here) noexcept nogil

# Any thread may use it.
cdef class HelperChannel:
    cdef int fd, pid
    cdef uint32_t number           # of the last request
    cdef bint is_late                 # which was not answered in time
    cdef bint gone
    cdef pthread_mutex_t mutex
    cdef bint mutex_made

    # The head is filled in here. passed: a descriptor to go with the request, or -1; *received: one that came with the
    # answer, the caller's, or -1. The size of the answer, of `room` at most;
    # -EAGAIN if there was none within a second, -EPIPE if the process has ended.
    cdef ssize_t call(self, request_head_t *request, size_t size, void *answer, size_t room, int passed,
                     int *received) noexcept nogil
    cdef ssize_t _call(self, request_head_t *request, size_t size, void *answer, size_t room, int passed,
                      int *received) noexcept nogil
    cdef ssize_t _receive(self, void *answer, size_t room, int flags, int *received) noexcept nogil
