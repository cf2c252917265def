"""The direction of a flow, seen from this host.

The originator is the source of the original tuple, before SNAT; the responder is the source of the reply tuple, after
DNAT. Which of these two addresses are local determines the direction.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset

from sys_socket cimport AF_INET, AF_INET6

from nfct_fast.namespaces.local_addresses cimport LocalAddresses
from nfct_fast.namespaces.local_routes cimport local_routes_t, routes_find
from nfct_fast.events.flow cimport tuple_t

cdef bint is_multicast(const uint8_t *addr, uint8_t family) noexcept nogil:
    if family == AF_INET:
        return addr[0] & 0xf0 == 0xe0 or memcmp(addr, b"\xff\xff\xff\xff", 4) == 0
    return addr[0] == 0xff


cdef direction_t direction_of(const tuple_t *orig, const tuple_t *reply,
                              const local_routes_t *addresses) noexcept nogil:
    return direction_from(reply, routes_find(addresses, &orig.src[0], orig.family) >= 0,
                          routes_find(addresses, &reply.src[0], reply.family) >= 0)


cdef direction_t direction_from(const tuple_t *reply, bint originator, bint responder) noexcept nogil:
    if originator:
        return DIRECTION_LOCAL if responder else DIRECTION_OUT
    # Assume that a packet to a multicast group is for members on this host, not to be routed on.
    return DIRECTION_IN if responder or is_multicast(&reply.src[0], reply.family) else DIRECTION_FORWARD


cdef uint8_t nat_of(const tuple_t *orig, const tuple_t *reply) noexcept nogil:
    # SNAT may change an ICMP id as it changes a port; the ports of an ICMP tuple are 0.
    cdef uint8_t flags = 0
    cdef size_t size = 4 if orig.family == AF_INET else 16
    if memcmp(reply.dst, orig.src, size) != 0 or reply.dport != orig.sport or reply.icmp_id != orig.icmp_id:
        flags |= FLOW_SNAT
    if memcmp(reply.src, orig.dst, size) != 0 or reply.sport != orig.dport:
        flags |= FLOW_DNAT
    return flags


def direction_of_packed(bytes src, int sport, bytes dst, int dport, bytes reply_src, int reply_sport,
                        bytes reply_dst, int reply_dport, LocalAddresses addresses):
    """Return (direction, set of NAT kinds) of a flow given by packed addresses, as strings."""
    cdef tuple_t orig, reply
    if not len(src) == len(dst) == len(reply_src) == len(reply_dst) or len(src) not in (4, 16):
        raise ValueError("all addresses must have 4 bytes, or all 16")
    memset(&orig, 0, sizeof(orig))
    memset(&reply, 0, sizeof(reply))
    orig.family = reply.family = AF_INET if len(src) == 4 else AF_INET6
    memcpy(orig.src, <const uint8_t *>src, len(src))
    memcpy(orig.dst, <const uint8_t *>dst, len(src))
    memcpy(reply.src, <const uint8_t *>reply_src, len(src))
    memcpy(reply.dst, <const uint8_t *>reply_dst, len(src))
    orig.sport, orig.dport, reply.sport, reply.dport = sport, dport, reply_sport, reply_dport
    cdef uint8_t nat = nat_of(&orig, &reply)
    return (NAMES[direction_of(&orig, &reply, &addresses.addresses.routes)],
            {name for flag, name in ((FLOW_SNAT, "snat"), (FLOW_DNAT, "dnat")) if nat & flag})


NAMES = {DIRECTION_OUT: "out", DIRECTION_IN: "in", DIRECTION_LOCAL: "local", DIRECTION_FORWARD: "forward"}
