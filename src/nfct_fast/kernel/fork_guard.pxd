cdef class ForkGuard:
    cdef int *page               # holds 1 in the process that made the guard, 0 in a forked child
    cdef readonly int pid        # id of the process that made the guard
    cdef bint here(self) noexcept nogil          # whether the calling process is the one that made the guard
    # Raise RuntimeError unless here(). what: the object that cannot be used, as the message names it.
    cdef int check(self, str what) except -1
