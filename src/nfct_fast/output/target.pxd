from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    SIZE_LOSS = 1 << 31      # bit of an entry's size: it reports a loss, and is no flow

cdef class Target:
    cdef readonly object name    # for messages, as in "not written to NAME"
    cdef size_t done             # entries that the last put() delivered in full
    cdef uint64_t refused        # datagrams that the receiver's host sent back, so far
    # Deliver entries, `sizes` being the length of each, perhaps with SIZE_LOSS. Blocks until they are delivered; 0,
    # -EINTR once when it is asked to end, -ETIMEDOUT if that is too long ago, or another -errno.
    cdef int put(self, const char *data, const uint32_t *sizes, size_t count) noexcept nogil
