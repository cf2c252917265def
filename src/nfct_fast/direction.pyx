"""Which way a flow goes, seen from this host.

The originator is the source of the original tuple, as it was before SNAT; the responder is the source of the reply
tuple, as it is after DNAT. Where these two addresses are local decides.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from linux_socket cimport AF_INET, AF_INET6

from nfct_fast.addresses cimport Addresses, addresses_t, addresses_find
from nfct_fast.flow cimport tuple_t

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_ICMP, IPPROTO_ICMPV6


cdef direction_t direction_of(const tuple_t *orig, const tuple_t *reply, const addresses_t *addresses) noexcept nogil:
    cdef bint originator = addresses_find(addresses, &orig.src[0], orig.family) >= 0
    cdef bint responder = addresses_find(addresses, &reply.src[0], reply.family) >= 0
    if originator:
        return DIRECTION_LOCAL if responder else DIRECTION_OUT
    return DIRECTION_IN if responder else DIRECTION_FORWARD


cdef uint8_t nat_of(const tuple_t *orig, const tuple_t *reply) noexcept nogil:
    # An ICMP id may be changed by SNAT like a port, but the tuple's ports are 0 there.
    cdef uint8_t flags = 0
    cdef size_t size = 4 if orig.family == AF_INET else 16
    if memcmp(reply.dst, orig.src, size) != 0 or reply.dport != orig.sport or reply.icmp_id != orig.icmp_id:
        flags |= FLOW_SNAT
    if memcmp(reply.src, orig.dst, size) != 0 or reply.sport != orig.dport:
        flags |= FLOW_DNAT
    return flags
