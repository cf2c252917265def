"""Requests to a helper process, and its replies."""
from libc.stdint cimport uint32_t

from posix_pthread cimport pthread_mutex_t

# The first fields of every request.
cdef struct request_head_t:
    uint32_t number                # request number, with which the reply begins, too
    uint32_t processor             # number of the processor that the caller runs on

# Called by the helper after each reply: move to the caller's processor, so as to be there for the next request.
# *current: the processor that the helper last moved to; initially ~0.
cdef void channel_follow_cpu(uint32_t processor, uint32_t *current) noexcept nogil

# Any thread may use it.
cdef class HelperChannel:
    cdef int fd                    # our end of the socket pair; -1: closed
    cdef int pid                   # process id of the helper
    cdef uint32_t number           # number of the last request
    cdef bint is_late              # the helper has not replied to the last request yet
    cdef bint gone                 # the helper has ended
    cdef pthread_mutex_t mutex     # held during a call
    cdef bint mutex_made           # `mutex` is initialized

    # Fill in the request's head, send the request, and receive the reply into `room` bytes. Return the reply's size,
    # -EAGAIN if none came within a second, or -EPIPE if the helper has ended. passed: a descriptor to send along, or
    # -1. *received: the descriptor that came with the reply, which the caller must close, or -1.
    cdef ssize_t call(self, request_head_t *request, size_t size, void *reply, size_t room, int passed,
                      int *received) noexcept nogil
    cdef ssize_t _call(self, request_head_t *request, size_t size, void *reply, size_t room, int passed,
                       int *received) noexcept nogil
    cdef ssize_t _receive(self, void *reply, size_t room, int flags, int *received) noexcept nogil
