"""The direction of a flow, seen from this host."""
from libc.stdint cimport uint8_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.events.flow cimport tuple_t

cdef enum direction_t:
    DIRECTION_OUT = 1
    DIRECTION_IN = 2
    DIRECTION_LOCAL = 3     # both ends are on this host
    DIRECTION_FORWARD = 4   # neither end is on this host

cdef enum:
    FLOW_SNAT = 1
    FLOW_DNAT = 2

cdef bint is_multicast(const uint8_t *addr, uint8_t family) noexcept nogil     # multicast, or IPv4's broadcast
cdef direction_t direction_of(const tuple_t *orig, const tuple_t *reply, const local_routes_t *addresses) noexcept nogil
cdef uint8_t nat_of(const tuple_t *orig, const tuple_t *reply) noexcept nogil
# The direction of a flow, given whether its originator's and its responder's address is local.
cdef direction_t direction_from(const tuple_t *reply, bint originator, bint responder) noexcept nogil
