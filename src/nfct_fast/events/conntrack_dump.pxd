from libc.stdint cimport uint32_t
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.events.flow cimport flow_t
from nfct_fast.kernel.netlink cimport NetlinkSocket

# One thread at a time.
cdef class ConntrackDump:
    cdef readonly NetlinkSocket socket
    cdef FlowDecoder decoder
    cdef flow_t *flows           # the entries read by the last next()
    cdef bint ended              # the kernel has sent the last part of the dump; also true before the first dump
    cdef bint interrupted        # the table changed during the dump: entries may be missing
    cdef uint32_t sequence       # netlink sequence number of the last request
    cdef int tries               # dumps that may still be made, including the present one
    # Request all entries of both families. 0 or -errno. Then call next() until it returns 0 or an error.
    cdef int begin(self) noexcept nogil
    # Read the next entries into `flows`. Return how many, 0 at the end, or -errno. Waits up to 5 s for the kernel.
    cdef int next(self) noexcept nogil
    cdef int _request(self, int message, int flags) noexcept nogil
    cdef bint _is_empty(self) noexcept nogil
    cdef int _restart(self) noexcept nogil
    cdef const void *_receive(self, size_t *length, int *result) noexcept nogil
    cdef int _next(self) noexcept nogil
