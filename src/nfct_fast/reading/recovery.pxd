"""Dump conntrack tables, to recover flows whose event was lost and to forget flows that have ended."""
from libc.stdint cimport int64_t
from nfct_fast.reading.intake cimport Intake
from nfct_fast.events.source cimport Source
from nfct_fast.events.sources cimport Sources

# Used by the reading thread only.
cdef class Recovery:
    cdef Intake intake
    cdef Sources sources
    cdef bint in_progress        # some source's dump is in progress
    cdef int next_source         # number of the source that advance() serves first
    # About once a second: note which sources are idle, and sweep those whose log has grown too long.
    cdef void sweep(self) noexcept nogil
    # Begin to look for the flows of a source that lost events and whose queue is empty. 0 or -errno.
    cdef int begin(self, Source source) noexcept nogil
    # Continue the dumps for 2 ms and deliver the flows that they found. 0 or -errno.
    cdef int advance(self) noexcept nogil
    # Report the losses that were not recovered, once a source's dump is over and its queue is empty. 0 or -errno.
    cdef int report_unrecovered(self, Source source) noexcept nogil
    # After stop(), finish the source's dump; flows for which the ring has no room are counted.
    cdef void finish(self, Source source) noexcept nogil
    cdef int _deliver_missed(self, Source source) noexcept nogil
