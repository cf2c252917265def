from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from nfct_fast.events.flow cimport flow_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.presentation cimport Presentation

# What a record_t holds.
cdef enum:
    RECORD_FLOW = 0          # one flow with its owners
    RECORD_LOSS = 1          # a report of lost events, in the place where they are missing

# What a flow is the first of, as far as is remembered; see seen/first_seen.pyx.
cdef enum:
    SEEN_DESTINATION = 1     # its program has not talked to this address before
    SEEN_PORT = 2            # nor to this port, of any address
    SEEN_ROAMING = 4         # it has talked to so many new addresses that no more of them are marked
    SEEN_SCANNING = 8        # the same of ports
    SEEN_ALL = 15

# Events that were lost since the previous report from the same namespace.
ctypedef struct loss_t:
    int64_t time             # ns since the epoch when the report was made
    int64_t since            # ns since the epoch when nothing had been lost yet; 0: unknown
    uint64_t netns_inode     # the namespace the events were lost in; 0: unknown
    uint64_t events          # events lost and not recovered; 0 if all were recovered
    bint at_least            # `events` is a lower bound

# All zero: a flow without owners.
ctypedef struct record_t:
    flow_t flow              # RECORD_FLOW only, like the next three
    owner_t owner            # the originator where it is local, else the responder
    owner_t peer             # the responder of a flow whose both ends are local
    uint8_t direction        # DIRECTION_*; 0: unknown
    uint8_t is_responder     # `owner` is the responder, as only that one is on this host
    uint8_t kind             # RECORD_*
    uint8_t first_seen       # SEEN_*
    uint32_t live            # of an event that FlowEnds is to handle: the flow's number in LiveFlows; 0: none
    int64_t began            # EVENT_FLOW only: ns since the epoch when its NEW event was received; 0: unknown
    uint16_t datagram        # 1 + its number in its source's inbox, until the record is published; 0: from a table
    loss_t loss              # RECORD_LOSS only

cdef void record_drop(record_t *record) noexcept nogil    # drop its references

# The Flow of a RECORD_FLOW; takes its references over.
cdef object flow_object(record_t *record, Presentation presentation=*)

# What a Flow holds, which lives as long as the Flow does, and how it is told. TypeError if it is none.
cdef const record_t *flow_record(object flow) except NULL
cdef Presentation flow_presentation(object flow)
