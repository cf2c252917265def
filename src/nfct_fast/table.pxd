from .flow cimport FlowDecoder, flow_t
from .netlink cimport NetlinkSocket

cdef class Table:
    cdef readonly NetlinkSocket socket
    cdef FlowDecoder decoder
    cdef flow_t *flows           # of the last next()
    cdef bint ended
    cdef int begin(self) noexcept nogil
    cdef int next(self) noexcept nogil
