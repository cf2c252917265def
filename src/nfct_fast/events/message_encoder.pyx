"""A flow as the conntrack message that says the same: for flows that were read from a table, not from an event.

Numbers are those of linux/netfilter/nfnetlink_conntrack.h, and attributes have the kernel's order.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from linux_netlink cimport (
    IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW, NFNL_SUBSYS_CTNETLINK, NLM_F_CREATE, NLM_F_EXCL, nlmsghdr,
)
from netinet_in cimport IPPROTO_DCCP, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP
from nfct_fast.events.flow cimport (
    EVENT_DESTROY, EVENT_NEW, FLOW_COUNTERS, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS, FLOW_STOP, NUMBER_ID,
    NUMBER_MARK, NUMBER_TIMEOUT, NUMBER_USE, NUMBER_ZONE, tuple_t,
)
from nfct_fast.text.text_buffer cimport buffer_put
from sys_socket cimport AF_INET

cdef enum:
    NESTED = 0x8000              # NLA_F_NESTED
    CTA_TUPLE_ORIG = 1
    CTA_TUPLE_REPLY = 2
    CTA_STATUS = 3
    CTA_PROTOINFO = 4
    CTA_TIMEOUT = 7
    CTA_MARK = 8
    CTA_COUNTERS_ORIG = 9
    CTA_COUNTERS_REPLY = 10
    CTA_USE = 11
    CTA_ID = 12
    CTA_ZONE = 18
    CTA_TIMESTAMP = 20
    IP = 1                       # within CTA_TUPLE_*: addresses, 1 and 2 for IPv4, 3 and 4 for IPv6
    PROTO = 2                    # the protocol's number 1, ports 2 and 3, ICMP 4 to 6, ICMPv6 7 to 9


cdef void _put(text_buffer_t *out, uint16_t type, const void *data, size_t size) noexcept nogil:
    cdef uint16_t header[2]
    header[0] = <uint16_t>(4 + size)
    header[1] = type
    buffer_put(out, <const char *>header, 4)
    buffer_put(out, <const char *>data, size)
    buffer_put(out, b"\0\0\0", (4 - size % 4) % 4)


cdef void _put_number(text_buffer_t *out, uint16_t type, uint64_t value, int size) noexcept nogil:
    # Big-endian, as all numbers within conntrack's attributes.
    cdef uint8_t data[8]
    cdef int i
    for i in range(size):
        data[i] = <uint8_t>(value >> 8 * (size - 1 - i))
    _put(out, type, data, size)


cdef size_t _begin(text_buffer_t *out, uint16_t type) noexcept nogil:
    cdef size_t at = out.length
    _put(out, type | NESTED, b"", 0)
    return at


cdef void _end(text_buffer_t *out, size_t at) noexcept nogil:
    cdef uint16_t size = <uint16_t>(out.length - at)
    if not out.failed:
        memcpy(out.data + at, &size, sizeof(size))


cdef void _put_tuple(text_buffer_t *out, uint16_t type, const tuple_t *tuple) noexcept nogil:
    cdef size_t whole = _begin(out, type)
    cdef size_t part = _begin(out, IP)
    cdef int first = 1 if tuple.family == AF_INET else 3
    cdef size_t size = 4 if tuple.family == AF_INET else 16
    _put(out, first, tuple.src, size)
    _put(out, first + 1, tuple.dst, size)
    _end(out, part)
    part = _begin(out, PROTO)
    _put_number(out, 1, tuple.proto, 1)
    if tuple.proto == IPPROTO_ICMP or tuple.proto == IPPROTO_ICMPV6:
        first = 4 if tuple.proto == IPPROTO_ICMP else 7
        _put_number(out, first, tuple.icmp_id, 2)
        _put_number(out, first + 1, tuple.icmp_type, 1)
        _put_number(out, first + 2, tuple.icmp_code, 1)
    else:
        _put_number(out, 2, tuple.sport, 2)
        _put_number(out, 3, tuple.dport, 2)
    _end(out, part)
    _end(out, whole)


cdef void _put_state(text_buffer_t *out, const flow_t *flow) noexcept nogil:
    cdef size_t whole = _begin(out, CTA_PROTOINFO)
    cdef int which = 3 if flow.orig.proto == IPPROTO_SCTP else 2 if flow.orig.proto == IPPROTO_DCCP else 1
    cdef size_t part = _begin(out, which)
    _put_number(out, 1, flow.state, 1)
    _end(out, part)
    _end(out, whole)


cdef void _put_counters(text_buffer_t *out, const flow_t *flow) noexcept nogil:
    cdef size_t part
    cdef int i
    for i in range(2):
        part = _begin(out, CTA_COUNTERS_REPLY if i else CTA_COUNTERS_ORIG)
        _put_number(out, 1, flow.packets[i], 8)
        _put_number(out, 2, flow.bytes[i], 8)
        _end(out, part)


cdef void message_put(text_buffer_t *out, const flow_t *flow) noexcept nogil:
    cdef nlmsghdr header
    cdef uint8_t family[4]
    cdef size_t begin = out.length
    cdef size_t part
    memset(&header, 0, sizeof(header))
    header.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | (
        IPCTNL_MSG_CT_DELETE if flow.type == EVENT_DESTROY else IPCTNL_MSG_CT_NEW)
    if flow.type == EVENT_NEW:
        header.nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL
    buffer_put(out, <const char *>&header, sizeof(header))
    memset(family, 0, sizeof(family))
    family[0] = flow.orig.family
    buffer_put(out, <const char *>family, sizeof(family))
    _put_tuple(out, CTA_TUPLE_ORIG, &flow.orig)
    if flow.has & FLOW_REPLY:
        _put_tuple(out, CTA_TUPLE_REPLY, &flow.reply)
    if flow.has_numbers >> NUMBER_ZONE & 1:
        _put_number(out, CTA_ZONE, flow.numbers[NUMBER_ZONE], 2)
    if flow.has & FLOW_STATUS:
        _put_number(out, CTA_STATUS, flow.status, 4)
    if flow.has_numbers >> NUMBER_TIMEOUT & 1:
        _put_number(out, CTA_TIMEOUT, flow.numbers[NUMBER_TIMEOUT], 4)
    if flow.has & FLOW_COUNTERS:
        _put_counters(out, flow)
    if flow.has & (FLOW_START | FLOW_STOP):
        part = _begin(out, CTA_TIMESTAMP)
        if flow.has & FLOW_START:
            _put_number(out, 1, flow.start, 8)
        if flow.has & FLOW_STOP:
            _put_number(out, 2, flow.stop, 8)
        _end(out, part)
    if flow.has & FLOW_STATE:
        _put_state(out, flow)
    if flow.has_numbers >> NUMBER_MARK & 1:
        _put_number(out, CTA_MARK, flow.numbers[NUMBER_MARK], 4)
    if flow.has_numbers >> NUMBER_ID & 1:
        _put_number(out, CTA_ID, flow.numbers[NUMBER_ID], 4)
    if flow.has_numbers >> NUMBER_USE & 1:
        _put_number(out, CTA_USE, flow.numbers[NUMBER_USE], 4)
    if not out.failed:
        header.nlmsg_len = <uint32_t>(out.length - begin)
        memcpy(out.data + begin, &header, sizeof(header))
