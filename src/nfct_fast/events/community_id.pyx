"""Community ID v1 of a tuple: one name for a flow in both directions, by which logs of different programs are joined.

The specification is https://github.com/corelight/community-id-spec: a seed, the two ends of the flow in the order of
their bytes, the protocol and the ports, hashed by SHA-1. An ICMP message has its type and that of its answer, or its
code where there is no answer, in the place of ports. UDP-Lite and DCCP have no ports there.
"""
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcmp, memcpy
from netinet_in cimport IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from nfct_fast.events.flow cimport FLOW_REPLY, flow_t, tuple_set, tuple_t
from sys_socket cimport AF_INET

cdef extern from "nfct_fast/text/sha1.h" nogil:
    void nfct_fast_sha1(const void *data, size_t size, unsigned char *digest)

cdef extern from "nfct_fast/text/base64.h" nogil:
    const char BASE64_DIGITS "nfct_fast_base64_digits"[65]
    size_t nfct_fast_base64(const unsigned char *data, size_t size, const char *digits, char *out)

cdef enum:
    NO_ANSWER = -1
    INPUT_MAX = 40           # seed, two IPv6 addresses, protocol, padding, two ports


cdef int _answer(const tuple_t *tuple) noexcept nogil:
    """The type of message that answers an ICMP or ICMPv6 message, or is answered by it; or NO_ANSWER."""
    cdef uint8_t type = tuple.icmp_type
    if tuple.proto == IPPROTO_ICMP:
        if type == 0 or type == 8:                          # echo
            return 8 - type
        if type == 9 or type == 10:                         # router advertisement and solicitation
            return 19 - type
        if 13 <= type <= 18:                                # time stamp, information, address mask
            return type + 1 if type & 1 else type - 1
    elif 128 <= type <= 131 or type == 144 or type == 145:  # echo, multicast listeners, home agents
        return type ^ 1
    elif 133 <= type <= 136 or type == 139 or type == 140:  # routers, neighbours, node information
        return type + 1 if type & 1 else type - 1
    return NO_ANSWER


cdef inline void _put_port(uint8_t *out, uint16_t port) noexcept nogil:
    out[0] = <uint8_t>(port >> 8)
    out[1] = <uint8_t>port


cdef int _input(const tuple_t *tuple, uint16_t seed, uint8_t *out) noexcept nogil:
    """Write what is hashed to out[0..INPUT_MAX) and return its size."""
    cdef int width = 4 if tuple.family == AF_INET else 16
    cdef uint16_t sport = tuple.sport
    cdef uint16_t dport = tuple.dport
    cdef bint has_ports = tuple.proto == IPPROTO_TCP or tuple.proto == IPPROTO_UDP or tuple.proto == IPPROTO_SCTP
    cdef bint one_way = False
    cdef bint swapped = False
    cdef int answer, order
    if tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6:
        answer = _answer(tuple)
        has_ports, one_way = True, answer == NO_ANSWER
        sport, dport = tuple.icmp_type, <uint16_t>(tuple.icmp_code if one_way else answer)
    if not one_way:
        order = memcmp(tuple.src, tuple.dst, width)
        swapped = order > 0 or order == 0 and has_ports and sport > dport
    _put_port(out, seed)
    memcpy(out + 2 + (width if swapped else 0), tuple.src, width)
    memcpy(out + 2 + (0 if swapped else width), tuple.dst, width)
    out += 2 + 2 * width
    out[0], out[1] = tuple.proto, 0
    if not has_ports:
        return 4 + 2 * width
    _put_port(out + 2, dport if swapped else sport)
    _put_port(out + 4, sport if swapped else dport)
    return 8 + 2 * width


cdef void community_id_digest(const tuple_t *tuple, uint16_t seed, uint8_t *digest) noexcept nogil:
    cdef uint8_t hashed[INPUT_MAX]
    nfct_fast_sha1(hashed, _input(tuple, seed, hashed), digest)


cdef void community_id_write(const tuple_t *tuple, uint16_t seed, char *out) noexcept nogil:
    cdef uint8_t digest[COMMUNITY_DIGEST_SIZE]
    community_id_digest(tuple, seed, digest)
    memcpy(out, b"1:", 2)
    nfct_fast_base64(digest, sizeof(digest), BASE64_DIGITS, out + 2)


cdef bint community_id_differs(const flow_t *flow) noexcept nogil:
    cdef uint8_t before[INPUT_MAX]
    cdef uint8_t after[INPUT_MAX]
    cdef int size
    if not flow.has & FLOW_REPLY:
        return False
    size = _input(&flow.orig, 0, before)
    return _input(&flow.reply, 0, after) != size or memcmp(before, after, size) != 0


def community_id(int proto, src, dst, sport=None, dport=None, int seed=0) -> str:
    """Return the Community ID v1 of a flow, in either direction.

    Args:
        proto: IP protocol number.
        src, dst: addresses in any form that ipaddress accepts.
        sport, dport: ports of TCP, UDP and SCTP; for ICMP and ICMPv6 type and code; for others they mean nothing.
        seed: 0 to 65535; whoever compares must use the same.

    Raises ValueError if an argument is out of range, or the addresses are not of one family.
    """
    cdef tuple_t tuple
    cdef char out[COMMUNITY_ID_SIZE]
    if not 0 <= seed <= 65535:
        raise ValueError(f"seed {seed}: must be from 0 to 65535")
    is_icmp = proto == IPPROTO_ICMP or proto == IPPROTO_ICMPV6
    if is_icmp and not (0 <= (sport or 0) <= 255 and 0 <= (dport or 0) <= 255):
        raise ValueError("ICMP type or code out of range")
    tuple_set(&tuple, proto, src, 0 if is_icmp else sport or 0, dst, 0 if is_icmp else dport or 0)
    if is_icmp:
        tuple.icmp_type, tuple.icmp_code = sport or 0, dport or 0
    community_id_write(&tuple, <uint16_t>seed, out)
    return out[:COMMUNITY_ID_SIZE].decode("ascii")
