from nfct_fast.kernel.fork_guard cimport ForkGuard
from nfct_fast.records.record cimport record_t
from nfct_fast.records.ring cimport Ring

cdef class Batch:
    cdef Ring ring
    cdef ForkGuard fork_guard
    cdef record_t *records
    cdef int count
    cdef int consumed               # from the first on, by __next__ or written
    cdef int fill(self) noexcept nogil
    cdef void consume(self, int until) noexcept nogil
    cdef int clear(self) noexcept nogil
