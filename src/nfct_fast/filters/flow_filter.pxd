"""Decide which flows are wanted, in three steps of growing knowledge."""
from nfct_fast.events.flow cimport flow_t
from nfct_fast.filters.flow_program cimport FlowProgram
from nfct_fast.records.record cimport record_t

# Immutable once it is made: any thread may use it.
cdef class FlowFilter:
    cdef readonly object expression          # what is wanted, of filters.expression
    cdef readonly frozenset protocols        # (address family, protocol number) of all flows that can be wanted
    cdef readonly bytes socket_filter        # for the kernel; None if it cannot refuse anything
    cdef FlowProgram heard                   # what the socket filter lets through; None: everything
    cdef FlowProgram possible                # what may be wanted whoever the owners are; None: everything
    cdef FlowProgram wanted                  # the whole expression; None if `possible` is that already
    # Whether the socket filter lets the flow's event through.
    cdef bint is_heard(self, const flow_t *flow) noexcept nogil
    # Whether the flow may be wanted, as far as can be told without its owners. flow.netns_inode must be set.
    cdef bint may_be_wanted(self, const flow_t *flow) noexcept nogil
    # Drop the records of `count` that are not wanted now that owners are known, move the others together, and return
    # how many those are.
    cdef int keep_wanted(self, record_t *records, int count) noexcept nogil
