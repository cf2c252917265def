"""From a source's datagrams to records in the ring: receive, decode, filter, attribute."""
from libc.stdint cimport int64_t, uint64_t
from stdatomic cimport atomic_bool
from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.events.flow cimport flow_t
from nfct_fast.filters.flow_filter cimport FlowFilter
from nfct_fast.records.record cimport record_t
from nfct_fast.records.ring cimport Ring
from nfct_fast.events.source cimport Source
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.reading.flow_ends cimport FlowEnds
from nfct_fast.replay.recorder cimport Recorder
from nfct_fast.seen.first_seen cimport FirstSeen

# Used by the reading thread only, except stop() and the readonly counts.
cdef class Intake:
    cdef Ring ring
    cdef FlowDecoder decoder
    cdef readonly FlowEnds flow_ends     # makes one record of each flow; None: events are delivered as they come
    cdef Recorder recorder               # of what is delivered, or None
    cdef readonly FirstSeen first_seen   # marks what was never seen before, or None
    cdef Recorder storer                 # the same, to a store; or None
    cdef readonly Resolver attribution
    cdef FlowFilter flow_filter
    cdef Wakeup wakeup                   # stop() was called
    cdef atomic_bool stopping            # stop() was called
    cdef atomic_bool no_consumer         # nobody will make room in the ring any more
    cdef readonly uint64_t events        # events decoded
    cdef readonly uint64_t filtered      # events and recovered flows not wanted that the socket filter let through
    cdef readonly uint64_t named         # flows for whose owner a process was found
    cdef readonly uint64_t undelivered   # events left over at stop(): no time to decode them, or no room in the ring
    cdef readonly uint64_t unreported_lost   # lost events whose report found no room in the ring at stop()
    cdef readonly bint at_least          # the two counts above are lower bounds: there was no time to count all
    # Whether a flow of that source may be wanted, as far as is known without its owners. Sets its netns_inode.
    cdef bint is_wanted(self, Source source, flow_t *flow) noexcept nogil
    # Attribute the first `count` records of the ring's room, which is_wanted() has let through, and publish those that
    # are wanted. since: CLOCK_MONOTONIC ns before the oldest of their events. 0 or -errno.
    cdef int deliver(self, Source source, record_t *records, int count, int64_t since) noexcept nogil
    # Receive and deliver up to `room` events. Return how many were received, 0 if none is queued, -ENOBUFS if events
    # were lost before the next one, or another -errno.
    cdef int read(self, Source source, int room) noexcept nogil
    # Free records in the ring, their number in *room. Waits until there is room; NULL if stop() is called before.
    cdef record_t *room(self, int *room) noexcept nogil
    # Wait until the ring may have room, stop() is called or `timeout` ms pass; 0 or -errno.
    cdef int wait_for_room(self, int timeout) noexcept nogil
    # Put a loss report into the ring if there is anything to report; 0 or -errno. tentative: see Source.
    cdef int report_loss(self, Source source, bint tentative) noexcept nogil
    # After stop(): deliver what is queued until `until` (CLOCK_MONOTONIC ns), count the rest for at most *count_ns of
    # processor time, which becomes what is left of it, and report losses. No further event may be queued.
    cdef void drain_rest(self, Source source, int64_t until, int64_t *count_ns) noexcept nogil
    cdef void _record(self, Recorder recorder, Source source, const record_t *records, int count) noexcept nogil
    cdef int _decode(self, Source source, int count) noexcept nogil
    cdef int _read_rest(self, Source source, int64_t until) noexcept nogil
    cdef int _count_rest(self, Source source, int64_t cpu_until, int64_t until) noexcept nogil
    cdef int _count_undelivered(self, Source source, int count) noexcept nogil
