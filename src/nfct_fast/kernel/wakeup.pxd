"""A descriptor that one thread makes readable for another."""

cdef class Wakeup:
    cdef int fd                      # -1: closed
    # set() and clear() without the GIL.
    cdef void notify(self) noexcept nogil
    cdef void drain(self) noexcept nogil
