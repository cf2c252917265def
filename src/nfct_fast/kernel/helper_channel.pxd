"""Requests to a helper process, and its replies."""
from libc.stdint cimport uint32_t

from posix_pthread cimport pthread_mutex_t

# Every request begins with it.
cdef struct request_head_t:
    uint32_t number                # the reply begins with the same number
    uint32_t processor             # that the caller runs on

# For the helper, once it has replied: move to the caller's processor, so that it is there for the next request.
# *current: the processor that it has moved to, at first ~0.
cdef void channel_follow_cpu(uint32_t processor, uint32_t *current) noexcept nogil

# Any thread may use it.
cdef class HelperChannel:
    cdef int fd                    # our end of the socket pair; -1: closed
    cdef int pid                   # of the helper
    cdef uint32_t number           # of the last request
    cdef bint is_late              # the helper has not replied to that yet
    cdef bint gone                 # the helper has ended
    cdef pthread_mutex_t mutex
    cdef bint mutex_made

    # Send a request, whose head is filled in here, and receive the reply into `room` bytes: its size, -EAGAIN if there
    # is none within a second, -EPIPE if the helper has ended. passed: a descriptor to send along, or -1. *received: the
    # descriptor that came with the reply, which the caller closes, or -1.
    cdef ssize_t call(self, request_head_t *request, size_t size, void *reply, size_t room, int passed,
                      int *received) noexcept nogil
    cdef ssize_t _call(self, request_head_t *request, size_t size, void *reply, size_t room, int passed,
                       int *received) noexcept nogil
    cdef ssize_t _receive(self, void *reply, size_t room, int flags, int *received) noexcept nogil
