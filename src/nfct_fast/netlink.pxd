from libc.stdint cimport int64_t, uint32_t, uint64_t
from sys_socket cimport iovec, mmsghdr

cdef class NetlinkSocket:
    cdef int fd
    cdef int slots
    cdef size_t slot_size
    cdef char *buffer
    cdef mmsghdr *messages
    cdef iovec *vectors
    cdef bint congested
    cdef uint32_t drops          # SK_MEMINFO_DROPS as last read; it wraps
    cdef readonly uint64_t lost
    cdef readonly uint64_t overruns
    cdef readonly uint64_t truncated
    cdef readonly int rcvbuf         # bytes the kernel counts against, twice what was asked for
    cdef int receive(self, int most) noexcept nogil
    cdef const void *datagram(self, int index, size_t *length) noexcept nogil
    cdef int grow(self, int limit, bint full) noexcept nogil
    cdef int64_t queued(self) noexcept nogil
    cdef int count_lost(self) noexcept nogil
