from libc.stdint cimport uint32_t, uint64_t

# A line or datagram.
cdef struct entry_t:
    uint32_t size            # bytes
    uint32_t flows           # that it stands for; 0: it is a header, or reports a loss

cdef class Target:
    cdef readonly object name    # for messages, as in "not written to NAME"
    cdef size_t done             # entries that the last put() delivered in full
    cdef uint64_t refused        # flows in datagrams that were too long or that the receiver's host sent back, so far
    # Deliver entries. Blocks until they are delivered; 0, -EINTR once when it is asked to end, -ETIMEDOUT if that is
    # too long ago, or another -errno.
    cdef int put(self, const char *data, const entry_t *entries, size_t count) noexcept nogil
