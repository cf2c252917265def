"""A descriptor that one thread makes readable for another."""

cdef class Wakeup:
    cdef int fd                      # -1: closed
    cdef void notify(self) noexcept nogil    # set() without the GIL
    cdef void drain(self) noexcept nogil     # clear() without the GIL
