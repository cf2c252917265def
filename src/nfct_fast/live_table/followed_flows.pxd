from libc.stdint cimport int64_t, uint32_t, uint64_t
from nfct_fast.events.flow cimport flow_t
from nfct_fast.processes.identity cimport Identity
from nfct_fast.live_table.flow_slots cimport FlowSlots, followed_t
from nfct_fast.records.record cimport record_t

# What the flows of a row have in common, in numbers.
cdef struct group_t:
    uint64_t window[2]       # as of followed_t
    uint64_t total[2]
    double rate[2]
    double began_rate        # flows/s that began in the last interval
    uint32_t began           # flows that began since then
    uint32_t flows           # flows that count for it, live ones and those that are kept
    uint32_t live
    int64_t active           # ns since the epoch when it last had a live flow

# Who made flows.
cdef struct party_t:
    void *process            # the process_t that its Party was made from, borrowed; NULL: there is none
    uint32_t flows           # flows of it, live ones and those that are kept
    uint32_t group           # its row, if rows are by who made flows; NO_GROUP: not looked up yet

# For one thread at a time.
cdef class FollowedFlows:
    cdef FlowSlots slots
    cdef Identity identity       # of the host whose flows these are
    cdef readonly str grouping
    cdef dict party_numbers      # number by what identifies a party
    cdef list party_keys         # and back; None: free
    cdef list party_objects
    cdef list free_parties
    cdef party_t *parties
    cdef dict group_numbers      # number by key
    cdef list group_keys         # and back; None: free
    cdef list group_names
    cdef list group_parties      # the Party that last made a flow of it
    cdef list free_groups
    cdef group_t *groups
    cdef group_t all             # of all rows together
    cdef readonly uint32_t live      # flows
    cdef readonly uint32_t closed    # flows that have ended and are kept
    cdef readonly uint64_t unfollowed    # flows that there was no room for
    cdef int64_t gone_after      # ns for which a flow is missing in the tables until it has ended
    cdef uint32_t round          # number of the current reading of the tables, or of the last one
    cdef readonly uint64_t entries       # that the last reading found, whether they are followed or not
    cdef readonly uint64_t uncounted     # of these, entries whose bytes the kernel does not count
    cdef uint64_t found, found_uncounted     # the same of the current reading
    cdef int _begin(self, record_t *record) except -1
    cdef int _end(self, record_t *record) except -1
    cdef uint32_t _party_of(self, const record_t *record) except? 0
    cdef uint32_t _group_of(self, uint32_t party, const followed_t *flow) except? 0
    cdef uint32_t _find_group(self, key, name, party) except? 0
    cdef void _join_group(self, uint32_t slot, uint32_t group) noexcept
    cdef void _count(self, followed_t *flow, const uint64_t *counters) noexcept
    cdef void _close(self, uint32_t slot, int64_t now, bint keep) noexcept
    cdef void _drop(self, uint32_t slot) noexcept
    cdef void join(self, const flow_t *entries, int count, uint64_t netns) noexcept
    cdef list _ranked(self, uint32_t group, str sort, int most)
    cdef object _flow_row(self, uint32_t slot)
