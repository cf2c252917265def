"""Dumps conntrack tables: to recover flows whose event was lost, and to forget flows that have ended."""
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
    # A source lost events and its queue is empty: start looking for their flows. 0 or -errno.
    cdef int begin(self, Source source) noexcept nogil
    # Continue the dumps for 2 ms and deliver the flows they found; 0 or -errno.
    cdef int advance(self) noexcept nogil
    # A source's dump is over and its queue is empty: report what was not found. 0 or -errno.
    cdef int settle(self, Source source) noexcept nogil
    # After stop(): finish the source's dump; what finds no room in the ring is counted.
    cdef void finish(self, Source source) noexcept nogil
    cdef int _deliver_missed(self, Source source) noexcept nogil
