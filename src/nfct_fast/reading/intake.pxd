"""From a source's datagrams into the ring: decode, filter, attribute."""
from libc.stdint cimport int64_t, uint64_t
from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.events.flow cimport flow_t
from nfct_fast.records.record cimport record_t
from nfct_fast.records.ring cimport Ring
from nfct_fast.events.source cimport Source

# One thread at a time.
cdef class Intake:
    cdef Ring ring
    cdef FlowDecoder decoder
    cdef readonly Resolver attribution
    cdef unsigned char wanted4[256]
    cdef unsigned char wanted6[256]
    cdef int wake                # eventfd
    cdef bint stopping
    cdef bint deserted           # and nobody takes what is read
    cdef readonly uint64_t events
    cdef readonly uint64_t filtered
    cdef readonly uint64_t named
    cdef readonly uint64_t unread    # events that a stop left no time to decode, or no room for
    cdef readonly uint64_t unsaid    # lost events that there was no room to tell of at a stop
    cdef readonly bint rushed        # there was no time even to count all of them
    cdef bint is_wanted(self, const flow_t *flow) noexcept nogil
    # Attributes and publishes the first `count` records of the ring's room, which are decoded and began after `since`: 0 or
    # -errno.
    cdef int deliver(self, Source source, record_t *records, int count, int64_t since) noexcept nogil
    # Receives and delivers at most `room` events: how many there were, 0 if none is left, -ENOBUFS if some were lost before
    # the next one, or another -errno.
    cdef int read(self, Source source, int room) noexcept nogil
    # Room in the ring for some records, how many in *room; NULL if stop() came before there was any.
    cdef record_t *room(self, int *room) noexcept nogil
    # Until the ring has room, stop() is called (again: deserted) or `timeout` ms are over; 0 or -errno.
    cdef int wait_for_room(self, int timeout) noexcept nogil
    # Puts a LOST record in place of the lost events that were counted and not recovered; 0 or -errno. hopeful: they may yet be.
    cdef int tell_lost(self, Source source, bint hopeful) noexcept nogil
    # What is still queued, where nothing more will be: delivers it until `until`, and counts what is left then until
    # `counted`, CLOCK_MONOTONIC ns, and tells of losses that were not yet told.
    cdef void finish(self, Source source, int64_t until, int64_t counted) noexcept nogil
    cdef int _take(self, Source source, int count) noexcept nogil
    cdef int _read_rest(self, Source source, int64_t until) noexcept nogil
    cdef int _count_rest(self, Source source, int64_t until) noexcept nogil
    cdef int _unheard(self, Source source, int count) noexcept nogil
