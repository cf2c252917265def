from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from nfct_fast.events.flow cimport flow_t, tuple_t

cdef enum:               # of followed_t.window, total and rate, seen from the process that is named
    BYTES_IN = 0
    BYTES_OUT = 1

cdef enum:
    NO_SLOT = 0

# A flow that is followed: 280 bytes.
ctypedef struct followed_t:
    uint64_t fingerprint     # of its id, tuple and zone; 0: the slot is free
    uint64_t netns           # inode of its network namespace
    tuple_t orig
    tuple_t reply
    uint64_t told[2]         # bytes of the original and the reply direction, as the kernel last told them
    uint64_t window[2]       # bytes in and out since the last interval ended
    uint64_t total[2]        # bytes in and out since it is followed
    double rate[2]           # bytes/s in and out in the last interval
    int64_t began            # ns since the epoch when its beginning was received
    int64_t ended            # ns since the epoch when its end was received; 0: it lives
    int64_t missed           # ns since the epoch when a complete reading first did not find it; 0: the last one did
    uint32_t party           # number of who made it
    uint32_t group           # number of the row that it counts for
    uint32_t next_free
    uint32_t round           # the last reading of the tables that it was seen in, or that was before it began
    uint8_t is_responder     # the process is the responder's: what the originator sends comes in
    uint8_t is_translated    # `reply` is known and not the inverse of `orig`

# Up to `capacity` flows, found by their entries' identity. It grows by doubling. For one thread at a time.
cdef class FlowSlots:
    cdef followed_t *at      # by number, from 1 on; it moves when put() makes room
    cdef uint32_t *index     # numbers by fingerprint, with open addressing; NO_SLOT: free
    cdef uint64_t mask       # of `index`: its size - 1
    cdef uint32_t room       # slots there are
    cdef uint32_t used       # slots that were ever used: all live below it
    cdef uint32_t free_slot  # first of the list of free ones
    cdef uint32_t count      # in use
    cdef uint32_t capacity
    # The number of a live flow, or NO_SLOT.
    cdef uint32_t find(self, const flow_t *flow, uint64_t fingerprint, uint64_t netns) noexcept nogil
    # Add a flow that find() does not find, all zero but its identity. NO_SLOT if there is no room.
    cdef uint32_t put(self, const flow_t *flow, uint64_t fingerprint, uint64_t netns) noexcept nogil
    # Have find() not find it any more: it has ended. Then free() can be called at any time.
    cdef void unlink(self, uint32_t slot) noexcept nogil
    cdef void free(self, uint32_t slot) noexcept nogil
    cdef bint _grow(self) noexcept nogil
    cdef uint64_t _home(self, uint64_t fingerprint, uint64_t netns) noexcept nogil
    cdef void _link(self, uint32_t slot) noexcept nogil
