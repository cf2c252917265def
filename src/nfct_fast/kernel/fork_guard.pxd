cdef class ForkGuard:
    cdef int *page
    cdef readonly int pid
    cdef bint here(self) noexcept nogil
    cdef int check(self, str what) except -1     # RuntimeError elsewhere
