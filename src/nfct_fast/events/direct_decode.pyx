"""Decode conntrack messages of the usual form directly, without libnetfilter_conntrack.

The library walks all attributes twice, copies each into an object of 400 bytes that has to be emptied first, and
returns each field by a call. That took 1.2 us, a third of the time that a flow took; this takes 0.06 us. It knows only
one form, that of ctnetlink_conntrack_event() in net/netfilter/nf_conntrack_netlink.c. Everything else (a damaged
message, an attribute that occurs twice or has another size, SCTP, DCCP, a helper, adjusted sequence numbers) is left to
the library. Unknown attributes are skipped. test_direct_decode.py compares the results of both.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from nfct_fast.events.flow cimport (FLOW_COUNTERS, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS, FLOW_STOP,
                                    NUMBER_ZONE, number_of_attribute, tuple_t)
from netinet_in cimport IPPROTO_DCCP, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, ntohs
from sys_socket cimport AF_INET, AF_INET6

cdef extern from "<endian.h>" nogil:
    uint32_t be32toh(uint32_t value)
    uint64_t be64toh(uint64_t value)

cdef enum:
    HEADERS = 16 + 4         # sizes of struct nlmsghdr and struct nfgenmsg
    TYPE = 0x3fff            # NLA_TYPE_MASK

# linux/netfilter/nfnetlink_conntrack.h
cdef enum:
    CTA_TUPLE_ORIG = 1
    CTA_TUPLE_REPLY = 2
    CTA_STATUS = 3
    CTA_PROTOINFO = 4
    CTA_COUNTERS_ORIG = 9
    CTA_COUNTERS_REPLY = 10
    CTA_SECMARK = 17
    CTA_TIMESTAMP = 20
    CTA_MARK_MASK = 21
    CTA_LABELS = 22
    CTA_LABELS_MASK = 23
    CTA_SYNPROXY = 24
    CTA_TIMESTAMP_EVENT = 27
    CTA_TUPLE_IP = 1
    CTA_TUPLE_PROTO = 2
    CTA_TUPLE_ZONE = 3
    CTA_IP_V4_SRC = 1
    CTA_IP_V4_DST = 2
    CTA_IP_V6_SRC = 3
    CTA_IP_V6_DST = 4
    CTA_PROTO_NUM = 1
    CTA_PROTO_SRC_PORT = 2
    CTA_PROTO_DST_PORT = 3
    CTA_PROTO_ICMP_ID = 4
    CTA_PROTO_ICMPV6_ID = 7
    CTA_PROTOINFO_TCP = 1
    CTA_PROTOINFO_TCP_STATE = 1
    CTA_PROTOINFO_TCP_WSCALE_REPLY = 3
    CTA_PROTOINFO_TCP_FLAGS_REPLY = 5


cdef inline uint16_t _half(const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value


cdef inline uint32_t _word(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return be32toh(value)


cdef inline uint64_t _long(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return be64toh(value)


cdef inline bint _is(const uint8_t *at, uint16_t length, uint16_t type) noexcept nogil:
    return _half(at) == length and (_half(at + 2) & TYPE) == type


cdef uint8_t icmp_answer(uint8_t proto, uint8_t type) noexcept nogil:
    # The kernel's own table (invmap in nf_conntrack_proto_icmp.c), since the library has the original type only.
    if proto == IPPROTO_ICMP:
        if type == 8:
            return 0
        if type == 0:
            return 8
        if type == 13 or type == 15 or type == 17:
            return type + 1
        if type == 14 or type == 16 or type == 18:
            return type - 1
    elif type == 128 or type == 139:
        return type + 1
    elif type == 129 or type == 140:
        return type - 1
    return type


cdef inline bint _ports(const uint8_t *at, size_t size, tuple_t *out) noexcept nogil:
    """Parse the attributes that follow CTA_PROTO_NUM: ports, or ICMP id, type and code."""
    cdef uint16_t first
    if out.proto == IPPROTO_ICMP or out.proto == IPPROTO_ICMPV6:
        first = CTA_PROTO_ICMP_ID if out.proto == IPPROTO_ICMP else CTA_PROTO_ICMPV6_ID
        if size != 24 or not _is(at, 6, first) or not _is(at + 8, 5, first + 1) or not _is(at + 16, 5, first + 2):
            return False
        out.icmp_id = ntohs(_half(at + 4))
        out.icmp_type = at[12]
        out.icmp_code = at[20]
        return True
    if size == 0:
        return True
    if size != 16 or not _is(at, 6, CTA_PROTO_SRC_PORT) or not _is(at + 8, 6, CTA_PROTO_DST_PORT):
        return False
    out.sport = ntohs(_half(at + 4))
    out.dport = ntohs(_half(at + 12))
    return True


cdef inline bint _tuple(const uint8_t *at, size_t size, tuple_t *out) noexcept nogil:
    """Parse the contents of CTA_TUPLE_*: two addresses, a protocol, and a zone unless it is the default one."""
    cdef size_t inner
    if out.family == AF_INET:
        if (size < 32 or not _is(at, 20, CTA_TUPLE_IP) or not _is(at + 4, 8, CTA_IP_V4_SRC)
                or not _is(at + 12, 8, CTA_IP_V4_DST)):
            return False
        memcpy(out.src, at + 8, 4)
        memcpy(out.dst, at + 16, 4)
        at += 20
        size -= 20
    else:
        if (size < 56 or not _is(at, 44, CTA_TUPLE_IP) or not _is(at + 4, 20, CTA_IP_V6_SRC)
                or not _is(at + 24, 20, CTA_IP_V6_DST)):
            return False
        memcpy(out.src, at + 8, 16)
        memcpy(out.dst, at + 28, 16)
        at += 44
        size -= 44
    inner = _half(at)
    if inner < 12 or inner > size or (_half(at + 2) & TYPE) != CTA_TUPLE_PROTO or not _is(at + 4, 5, CTA_PROTO_NUM):
        return False
    out.proto = at[8]
    if not _ports(at + 12, inner - 12, out):
        return False
    at += inner
    size -= inner
    return size == 0 or size == 8 and _is(at, 6, CTA_TUPLE_ZONE)


cdef inline bint _protoinfo(const uint8_t *at, size_t size, flow_t *out) noexcept nogil:
    """Parse the contents of CTA_PROTOINFO for TCP, which begin with the state."""
    cdef uint16_t type
    if size < 12 or not _is(at, <uint16_t>size, CTA_PROTOINFO_TCP) or not _is(at + 4, 5, CTA_PROTOINFO_TCP_STATE):
        return False
    out.has |= FLOW_STATE
    out.state = at[8]
    at += 12
    size -= 12
    while size >= 8:
        type = _half(at + 2) & TYPE
        if type <= CTA_PROTOINFO_TCP_STATE or type > CTA_PROTOINFO_TCP_FLAGS_REPLY or _half(at) != (
                5 if type <= CTA_PROTOINFO_TCP_WSCALE_REPLY else 6):
            return False
        at += 8
        size -= 8
    return size == 0


cdef inline bint _two_numbers(const uint8_t *at, size_t size, uint64_t *first, uint64_t *second) noexcept nogil:
    """Parse attributes 1 and 2, of eight bytes each, in this order."""
    if size != 24 or not _is(at, 12, 1) or not _is(at + 12, 12, 2):
        return False
    first[0] = _long(at + 4)
    second[0] = _long(at + 16)
    return True


cdef inline bint _timestamp(const uint8_t *at, size_t size, flow_t *out) noexcept nogil:
    cdef uint64_t start
    cdef uint64_t stop
    if size == 12 and _is(at, 12, 1):
        out.start = <int64_t>_long(at + 4)
    elif _two_numbers(at, size, &start, &stop):
        out.start = <int64_t>start
        out.stop = <int64_t>stop
        out.has |= FLOW_STOP
    else:
        return False
    out.has |= FLOW_START
    return True


cdef inline bint _number(const uint8_t *at, uint16_t type, size_t size, flow_t *out) noexcept nogil:
    """Parse an attribute that is one number, or skip it."""
    cdef int number = number_of_attribute(type)
    if number >= 0:
        if size != (2 if number == NUMBER_ZONE else 4):
            return False
        out.numbers[number] = ntohs(_half(at)) if number == NUMBER_ZONE else _word(at)
        out.has_numbers |= <uint16_t>(1 << number)
        return True
    if type == CTA_LABELS or type == CTA_LABELS_MASK:
        return size != 0 and size % 4 == 0
    if type > CTA_SYNPROXY or type == CTA_MARK_MASK and size == 4:
        return True
    if size != 4:
        return False
    if type == CTA_STATUS:
        out.status = _word(at)
        out.has |= FLOW_STATUS
        return True
    return type == CTA_SECMARK


cdef inline bint _attribute(const uint8_t *at, uint16_t type, size_t size, flow_t *out) noexcept nogil:
    if type == CTA_TUPLE_ORIG:
        return _tuple(at, size, &out.orig)
    if type == CTA_TUPLE_REPLY:
        return _tuple(at, size, &out.reply)
    if type == CTA_PROTOINFO:
        return _protoinfo(at, size, out)
    if type == CTA_COUNTERS_ORIG:
        return _two_numbers(at, size, &out.packets[0], &out.bytes[0])
    if type == CTA_COUNTERS_REPLY:
        return _two_numbers(at, size, &out.packets[1], &out.bytes[1])
    if type == CTA_TIMESTAMP:
        return _timestamp(at, size, out)
    if type == CTA_TIMESTAMP_EVENT and size == 8:
        out.occurred = <int64_t>_long(at)
    return _number(at, type, size, out)


cdef inline bint _finish(uint32_t seen, flow_t *out) noexcept nogil:
    """Check that the attributes seen fit together, and fill in the fields that depend on several."""
    cdef uint32_t counters = seen & (1 << CTA_COUNTERS_ORIG | 1 << CTA_COUNTERS_REPLY)
    if not seen & 1 << CTA_TUPLE_ORIG or out.orig.proto == IPPROTO_SCTP or out.orig.proto == IPPROTO_DCCP:
        return False
    if counters:
        if counters != (1 << CTA_COUNTERS_ORIG | 1 << CTA_COUNTERS_REPLY):
            return False
        out.has |= FLOW_COUNTERS
    if not seen & 1 << CTA_TUPLE_REPLY:
        out.reply.family = 0
        return True
    out.has |= FLOW_REPLY
    if out.reply.proto != out.orig.proto:
        return False
    if out.orig.proto == IPPROTO_ICMP or out.orig.proto == IPPROTO_ICMPV6:
        out.reply.icmp_id = out.orig.icmp_id
        out.reply.icmp_type = icmp_answer(out.orig.proto, out.orig.icmp_type)
        out.reply.icmp_code = out.orig.icmp_code
    return True


cdef int64_t event_time(const uint8_t *message, size_t length) noexcept nogil:
    cdef const uint8_t *at = message + HEADERS
    cdef size_t left = length - HEADERS if length > HEADERS else 0
    cdef size_t size
    while left >= 12:
        size = _half(at)
        if size < 4 or size > left:
            break
        if size == 12 and (_half(at + 2) & TYPE) == CTA_TIMESTAMP_EVENT:
            return <int64_t>_long(at + 4)
        size = min(left, (size + 3) & ~<size_t>3)
        at += size
        left -= size
    return 0


cdef bint direct_decode(const uint8_t *message, size_t length, flow_t *out) noexcept nogil:
    cdef const uint8_t *at = message + HEADERS
    cdef size_t left = length - HEADERS
    cdef size_t size
    cdef size_t step
    cdef uint32_t seen = 0
    cdef uint16_t type
    if length < HEADERS:
        return False
    out.orig.family = out.reply.family = message[16]      # nfgen_family
    if out.orig.family != AF_INET and out.orig.family != AF_INET6:
        return False
    while left >= 4:
        size = _half(at)
        type = _half(at + 2) & TYPE
        if size < 4 or size > left:
            return False
        if type < 32:
            if seen >> type & 1:
                return False
            seen |= <uint32_t>1 << type
        if not _attribute(at + 4, type, size - 4, out):
            return False
        step = (size + 3) & ~<size_t>3
        if step >= left:
            break
        at += step
        left -= step
    return _finish(seen, out)
