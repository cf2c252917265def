from .record cimport record_t
from .ring cimport Ring

cdef class Batch:
    cdef Ring ring
    cdef record_t *records
    cdef int count
    cdef int taken               # by __next__
    cdef int fill(self) noexcept nogil
    cdef int clear(self) noexcept nogil
