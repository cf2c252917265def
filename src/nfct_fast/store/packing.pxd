from libc.stdint cimport uint8_t

# Leave out the bytes that are 0: one byte of marks for each 8 bytes, of which bit i says that byte i follows. What is
# missing of the last 8 is 0. Half of a chunk of a recording is zeros.

cdef inline size_t packed_room(size_t size) noexcept nogil:
    """The most bytes that `size` bytes take."""
    return size + (size + 7) // 8

# Pack data[0..size) to out[0..packed_room(size)), and return the size of it.
cdef size_t pack(const uint8_t *data, size_t size, uint8_t *out) noexcept nogil
# Unpack to out[0..room), and return the size of it, a multiple of 8; -1 if it is damaged, or there is no room.
cdef ssize_t unpack(const uint8_t *data, size_t size, uint8_t *out, size_t room) noexcept nogil
