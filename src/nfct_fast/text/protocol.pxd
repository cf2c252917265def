from libc.stdint cimport uint8_t

cdef int protocol_write(uint8_t family, uint8_t proto, char *out) noexcept nogil   # out: 32 bytes; returns the length
