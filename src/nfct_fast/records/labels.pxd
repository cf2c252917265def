from libc.stdint cimport uint8_t

cdef const char *event_name(uint8_t type) noexcept nogil            # NULL for no EVENT_*
cdef const char *direction_name(uint8_t direction) noexcept nogil   # NULL for no DIRECTION_*

cdef enum:
    ADDRESS_SIZE = 46        # INET6_ADDRSTRLEN

cdef int address_write(const uint8_t *address, uint8_t family, char *out) noexcept nogil   # the length
