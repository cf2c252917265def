from nfct_fast.kernel.fork_guard cimport ForkGuard
from nfct_fast.processes.redactor cimport Redactor
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport record_t
from nfct_fast.records.ring cimport Ring

cdef class TakenRecords:
    cdef Ring ring
    cdef ForkGuard fork_guard
    cdef Presentation presentation       # of the objects that are made
    cdef Redactor redactor               # None: command lines are shown as they are
    cdef record_t *records       # in the ring's memory, this batch's until clear()
    cdef int count               # number of records
    cdef int consumed            # how many of them, from the first on, were written or made into objects
    # Take what the ring holds and return its size: 0 if it is empty now, -1 if no record will ever come again.
    cdef int fill(self) noexcept nogil
    # Drop the records before number `until`: they have been written.
    cdef void consume(self, int until) noexcept nogil
    # Give all records back to the ring, dropping those not consumed.
    cdef void clear(self) noexcept nogil
