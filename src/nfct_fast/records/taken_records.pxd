from nfct_fast.kernel.fork_guard cimport ForkGuard
from nfct_fast.processes.redactor cimport Redactor
from nfct_fast.records.flow_counts cimport FlowCounts
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport record_t
from nfct_fast.records.ring cimport Ring

cdef enum:               # what becomes of a RECORD_LOSS where Python objects are made
    LOSS_COUNTED = 0     # nothing
    LOSS_YIELDED = 1     # a Lost
    LOSS_RAISED = 2      # the exception LostEvents

cdef class TakenRecords:
    cdef Ring ring
    cdef ForkGuard fork_guard
    cdef Presentation presentation       # of the objects that are made
    cdef Redactor redactor               # None: command lines are shown as they are
    cdef FlowCounts counts               # of what is taken; None: nobody counts
    cdef record_t *records       # in the ring's memory, this batch's until clear()
    cdef int count               # number of records
    cdef int consumed            # how many of them, from the first on, were written or made into objects
    cdef int on_loss             # LOSS_*
    # The next record as a Flow or a Lost; None if there is none. Raises LostEvents; unless `may_raise`, it then returns
    # None, and the next call raises.
    cdef object next_one(self, bint may_raise)
    # Take what the ring holds and return its size: 0 if it is empty now, -1 if no record will ever come again.
    cdef int fill(self) noexcept nogil
    # Drop the records before number `until`: they have been written.
    cdef void consume(self, int until) noexcept nogil
    # Give all records back to the ring, dropping those not consumed.
    cdef void clear(self) noexcept nogil
