"""Parts of a flow as text: event type, direction, address."""
from libc.stdint cimport uint8_t
from libc.string cimport strlen
from netinet_in cimport inet_ntop
from nfct_fast.events.flow cimport EVENT_COUNT
from nfct_fast.events.outcome cimport OUTCOME_COUNT
from sys_socket cimport AF_INET

cdef extern from "nfct_fast/records/flow_labels.h" nogil:
    const char *const nfct_fast_event_names[EVENT_COUNT]
    const char *const nfct_fast_outcome_names[OUTCOME_COUNT]
    const char *const nfct_fast_direction_names[5]
    const char *const nfct_fast_first_seen_names[16]


cdef const char *event_name(uint8_t type) noexcept nogil:
    return nfct_fast_event_names[type] if type < EVENT_COUNT else NULL


cdef const char *outcome_name(uint8_t outcome) noexcept nogil:
    return nfct_fast_outcome_names[outcome] if outcome < OUTCOME_COUNT else NULL


cdef const char *direction_name(uint8_t direction) noexcept nogil:
    return nfct_fast_direction_names[direction] if direction < 5 else NULL


cdef const char *first_seen_name(uint8_t marks) noexcept nogil:
    return nfct_fast_first_seen_names[marks] if marks < 16 else NULL


cdef int _octet(uint8_t value, char *out) noexcept nogil:
    cdef int length = 0
    if value >= 100:
        out[0] = <char>(48 + value // 100)
        length = 1
    if value >= 10:
        out[length] = <char>(48 + value // 10 % 10)
        length += 1
    out[length] = <char>(48 + value % 10)
    return length + 1


cdef int address_write(const uint8_t *address, uint8_t family, char *out) noexcept nogil:
    cdef int length = 0
    cdef int i
    if family != AF_INET:
        if inet_ntop(family, address, out, ADDRESS_SIZE) == NULL:
            out[0] = c"-"
            return 1
        return <int>strlen(out)
    # Not inet_ntop: glibc's goes through snprintf for IPv4, 0.2 us each, 4 % of all that a flow costs.
    for i in range(4):
        if i:
            out[length] = c"."
            length += 1
        length += _octet(address[i], out + length)
    return length
