"""A descriptor that one thread makes readable for another."""

cdef class Wakeup:
    cdef int fd
