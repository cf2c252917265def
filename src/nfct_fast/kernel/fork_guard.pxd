cdef class ForkGuard:
    cdef int *page               # holds 1 in the process that made it, 0 in any other
    cdef readonly int pid        # of the process that made it
    cdef bint here(self) noexcept nogil          # whether this is that process
    # RuntimeError, which names `what`, in any other process.
    cdef int check(self, str what) except -1
