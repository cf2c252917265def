"""Who began the flows that live, until they end."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from nfct_fast.events.flow cimport flow_t, tuple_t
from nfct_fast.processes.process cimport process_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.record cimport record_t

cdef enum:
    LIVE_USERS = 256         # groups of users whose flows are counted together
    LIVE_NAMESPACES = 1024   # SOURCES of events/sources.pxd
    LIVE_PROCESSES = 1024

ctypedef struct live_flow_t:
    uint64_t fingerprint     # of the conntrack entry
    tuple_t orig
    uint16_t netns           # flow_t.netns
    uint16_t user            # its group of users
    uint8_t direction        # as of record_t, like the next
    uint8_t is_responder
    uint8_t is_recovered     # it was read from the conntrack table
    uint8_t peer_reason
    uint8_t place            # FREE, ...
    uint32_t generation      # of the namespace's number
    uint32_t losses          # Source.losses when it began
    int64_t began            # ns since the epoch when its NEW event was received; 0: unknown
    int64_t since            # CLOCK_BOOTTIME ns: it began later
    owner_t owner
    owner_t *peer            # NULL: none is known
    uint32_t next            # in its bucket, or of those that are free
    uint32_t older           # of the same group of users
    uint32_t newer

# The flows of one group of users, oldest first, and what they take.
ctypedef struct live_user_t:
    uint32_t oldest
    uint32_t newest
    uint32_t count
    uint64_t bytes           # of processes

# Flows are known by their number; 0 is none. For one thread, except the counts.
cdef class LiveFlows:
    cdef live_flow_t *flows      # mapped, not touched before it is needed: flows[0] is unused
    cdef uint32_t *buckets
    cdef uint32_t bucket_mask
    cdef uint64_t multiplier     # of fingerprints; others cannot know it
    cdef readonly uint32_t capacity      # flows kept at most
    cdef uint32_t room           # of `flows`: more than the capacity, for those that a batch begins or ends
    cdef uint32_t used           # flows[1..used] were used already
    cdef uint32_t free           # the first of those that are free again
    cdef uint32_t swept          # sweep() goes on behind it
    cdef live_user_t users[LIVE_USERS]
    cdef process_t *processes[LIVE_PROCESSES]    # kept last, by pid, a reference each
    cdef uint32_t generations[LIVE_NAMESPACES]
    cdef readonly uint64_t count         # flows that are kept
    cdef readonly uint64_t bytes         # of processes that they keep
    cdef uint64_t bytes_limit
    cdef readonly uint64_t forgotten     # flows dropped to make room
    cdef readonly uint64_t unended       # flows dropped as their end will not be heard

    # A flow begins: its number, or 0 if there is no memory. keep() has to follow.
    cdef uint32_t begin(self, const flow_t *flow, uint32_t losses, int64_t since) noexcept nogil
    # The owners of a flow that has begun. copied: the record keeps its references; else they are moved.
    cdef void keep(self, uint32_t number, record_t *record, bint copied) noexcept nogil
    # A flow ends: its number, or 0 if it is not known. give() has to follow.
    cdef uint32_t take(self, const flow_t *flow) noexcept nogil
    # Move what was kept of it into its record.
    cdef void give(self, uint32_t number, record_t *record) noexcept nogil
    # The flows of that namespace will not be heard of any more.
    cdef void forget_namespace(self, uint16_t netns) noexcept nogil
    # Free some of what was forgotten.
    cdef void sweep(self, uint32_t most) noexcept nogil
    cdef uint32_t *_bucket(self, uint64_t fingerprint, uint16_t netns) noexcept nogil
    cdef uint32_t _find(self, const flow_t *flow, uint64_t fingerprint) noexcept nogil
    cdef uint32_t _room(self) noexcept nogil
    cdef void _unlink(self, uint32_t number) noexcept nogil
    cdef void _drop(self, uint32_t number) noexcept nogil
    cdef bint _make_room(self) noexcept nogil
    cdef uint16_t _user_of(self, const owner_t *owner, uint16_t netns) noexcept nogil
    cdef uint16_t _group(self, uint64_t identity) noexcept nogil
    cdef void _unbucket(self, uint32_t number) noexcept nogil
    cdef process_t *_same(self, process_t *process) noexcept nogil
    cdef void _hold(self, process_t *process) noexcept nogil
    cdef void _release(self, process_t *process) noexcept nogil
    cdef void _hold_owner(self, owner_t *owner) noexcept nogil
    cdef void _release_owner(self, const owner_t *owner) noexcept nogil
