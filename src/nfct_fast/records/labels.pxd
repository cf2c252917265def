from libc.stdint cimport uint8_t

cdef const char *event_name(uint8_t type) noexcept nogil            # of an EVENT_*; NULL for any other number
cdef const char *outcome_name(uint8_t outcome) noexcept nogil       # of an OUTCOME_*; NULL for OUTCOME_UNKNOWN
cdef const char *direction_name(uint8_t direction) noexcept nogil   # of a DIRECTION_*; NULL for any other number
cdef const char *first_seen_name(uint8_t marks) noexcept nogil      # of SEEN_*, with commas; NULL for none

cdef enum:
    ADDRESS_SIZE = 46        # INET6_ADDRSTRLEN

# Write an address as text to out[0..ADDRESS_SIZE) and return its length.
cdef int address_write(const uint8_t *address, uint8_t family, char *out) noexcept nogil
