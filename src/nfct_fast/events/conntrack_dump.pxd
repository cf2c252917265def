from libc.stdint cimport uint32_t
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.events.flow cimport flow_t
from nfct_fast.kernel.netlink cimport NetlinkSocket

cdef class ConntrackDump:
    cdef readonly NetlinkSocket socket
    cdef FlowDecoder decoder
    cdef flow_t *flows           # of the last next()
    cdef bint ended
    cdef bint interrupted        # what was read until now may lack entries
    cdef uint32_t sequence       # of the last request
    cdef int tries               # to read it anew that are left
    cdef int begin(self) noexcept nogil
    cdef int next(self) noexcept nogil
    cdef int _request(self, int message, int flags) noexcept nogil
    cdef bint _is_empty(self) noexcept nogil
    cdef int _ask(self) noexcept nogil
    cdef const void *_receive(self, size_t *length, int *result) noexcept nogil
    cdef int _next(self) noexcept nogil
