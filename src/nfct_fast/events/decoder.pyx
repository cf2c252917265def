"""Decode conntrack messages into flow_t, by direct_decode() or else by libnetfilter_conntrack.

Unknown attributes and message types are skipped, since newer kernels may add them.
"""
cimport cython
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memset
cimport libnetfilter_conntrack as nfct
from libnetfilter_conntrack cimport (
    nf_conntrack, nf_conntrack_attr, nf_conntrack_attr_grp, nfct_attr_grp_ipv4, nfct_attr_grp_ipv6, nfct_attr_grp_port,
    nfct_get_attr_grp,
)
from linux_netlink cimport (
    IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW, NFNL_MSG_TYPE, NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_ID, NLM_F_CREATE,
    NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR, nlmsghdr,
)
from netinet_in cimport IPPROTO_DCCP, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, ntohs
from nfct_fast.events.direct_decode cimport direct_decode, event_time, icmp_answer
from nfct_fast.events.flow cimport (
    EVENT_DESTROY, EVENT_NEW, EVENT_UPDATE, FLOW_COUNTERS, FLOW_REPLY, FLOW_START, FLOW_STATE, FLOW_STATUS, FLOW_STOP,
    NUMBER_ZONE, NUMBERS, flow_t, number_attribute_of_library, tuple_t,
)
from sys_socket cimport AF_INET, AF_INET6

cdef extern from "nfct_fast/events/ct_message.h" nogil:
    bint nfct_fast_ct_message(const void *message, size_t length)


cdef bint _is_icmp(uint8_t proto) noexcept nogil:
    return proto == IPPROTO_ICMP or proto == IPPROTO_ICMPV6


cdef void _copy_addresses(const nf_conntrack *ct, nf_conntrack_attr_grp v4, nf_conntrack_attr_grp v6,
                          tuple_t *out) noexcept nogil:
    cdef nfct_attr_grp_ipv4 four
    cdef nfct_attr_grp_ipv6 six
    if out.family == AF_INET:
        if nfct_get_attr_grp(ct, v4, &four) == 0:
            memcpy(out.src, &four.src, 4)
            memcpy(out.dst, &four.dst, 4)
    elif out.family == AF_INET6 and nfct_get_attr_grp(ct, v6, &six) == 0:
        memcpy(out.src, six.src, 16)
        memcpy(out.dst, six.dst, 16)


cdef void _copy_ports(const nf_conntrack *ct, nf_conntrack_attr_grp ports, tuple_t *out) noexcept nogil:
    cdef nfct_attr_grp_port both
    if nfct_get_attr_grp(ct, ports, &both) == 0:
        out.sport = ntohs(both.sport)
        out.dport = ntohs(both.dport)


cdef void _copy_original(const nf_conntrack *ct, tuple_t *out) noexcept nogil:
    out.family = nfct.nfct_get_attr_u8(ct, nfct.ATTR_ORIG_L3PROTO)
    out.proto = nfct.nfct_get_attr_u8(ct, nfct.ATTR_ORIG_L4PROTO)
    _copy_addresses(ct, nfct.ATTR_GRP_ORIG_IPV4, nfct.ATTR_GRP_ORIG_IPV6, out)
    if _is_icmp(out.proto):
        out.icmp_id = ntohs(nfct.nfct_get_attr_u16(ct, nfct.ATTR_ICMP_ID))
        out.icmp_type = nfct.nfct_get_attr_u8(ct, nfct.ATTR_ICMP_TYPE)
        out.icmp_code = nfct.nfct_get_attr_u8(ct, nfct.ATTR_ICMP_CODE)
    else:
        _copy_ports(ct, nfct.ATTR_GRP_ORIG_PORT, out)


cdef void _copy_reply(const nf_conntrack *ct, const tuple_t *orig, tuple_t *out) noexcept nogil:
    out.family = orig.family
    out.proto = orig.proto
    _copy_addresses(ct, nfct.ATTR_GRP_REPL_IPV4, nfct.ATTR_GRP_REPL_IPV6, out)
    if _is_icmp(out.proto):
        out.icmp_id = orig.icmp_id
        out.icmp_type = icmp_answer(out.proto, orig.icmp_type)
        out.icmp_code = orig.icmp_code
    else:
        _copy_ports(ct, nfct.ATTR_GRP_REPL_PORT, out)


cdef void _copy_counters(const nf_conntrack *ct, flow_t *out) noexcept nogil:
    if nfct.nfct_attr_is_set(ct, nfct.ATTR_ORIG_COUNTER_PACKETS) > 0:
        out.has |= FLOW_COUNTERS
        out.packets[0] = nfct.nfct_get_attr_u64(ct, nfct.ATTR_ORIG_COUNTER_PACKETS)
        out.packets[1] = nfct.nfct_get_attr_u64(ct, nfct.ATTR_REPL_COUNTER_PACKETS)
        out.bytes[0] = nfct.nfct_get_attr_u64(ct, nfct.ATTR_ORIG_COUNTER_BYTES)
        out.bytes[1] = nfct.nfct_get_attr_u64(ct, nfct.ATTR_REPL_COUNTER_BYTES)
    if nfct.nfct_attr_is_set(ct, nfct.ATTR_TIMESTAMP_START) > 0:
        out.has |= FLOW_START
        out.start = <int64_t>nfct.nfct_get_attr_u64(ct, nfct.ATTR_TIMESTAMP_START)
    if nfct.nfct_attr_is_set(ct, nfct.ATTR_TIMESTAMP_STOP) > 0:
        out.has |= FLOW_STOP
        out.stop = <int64_t>nfct.nfct_get_attr_u64(ct, nfct.ATTR_TIMESTAMP_STOP)


cdef void _copy_state(const nf_conntrack *ct, flow_t *out) noexcept nogil:
    cdef nf_conntrack_attr which = nfct.ATTR_TCP_STATE
    if out.orig.proto == IPPROTO_SCTP:
        which = nfct.ATTR_SCTP_STATE
    elif out.orig.proto == IPPROTO_DCCP:
        which = nfct.ATTR_DCCP_STATE
    if nfct.nfct_attr_is_set(ct, which) > 0:
        out.has |= FLOW_STATE
        out.state = nfct.nfct_get_attr_u8(ct, which)


cdef void _copy_numbers(const nf_conntrack *ct, flow_t *out) noexcept nogil:
    cdef nf_conntrack_attr which
    cdef int number
    for number in range(NUMBERS):
        which = number_attribute_of_library(number)
        if nfct.nfct_attr_is_set(ct, which) > 0:
            out.has_numbers |= <uint16_t>(1 << number)
            out.numbers[number] = (nfct.nfct_get_attr_u16(ct, which) if number == NUMBER_ZONE
                                   else nfct.nfct_get_attr_u32(ct, which))


cdef void _copy_flow(const nf_conntrack *ct, flow_t *out) noexcept nogil:
    _copy_original(ct, &out.orig)
    if nfct.nfct_attr_is_set(ct, nfct.ATTR_REPL_L4PROTO) > 0:
        out.has |= FLOW_REPLY
        _copy_reply(ct, &out.orig, &out.reply)
    if nfct.nfct_attr_is_set(ct, nfct.ATTR_STATUS) > 0:
        out.has |= FLOW_STATUS
        out.status = nfct.nfct_get_attr_u32(ct, nfct.ATTR_STATUS)
    _copy_numbers(ct, out)
    _copy_state(ct, out)
    _copy_counters(ct, out)


cdef int _reset(_decoding *state) noexcept nogil:
    # nfct_copy with OVERRIDE is the only public way to empty an object. It drops the pointers to what the parser
    # allocated for these three attributes, which would leak.
    cdef nf_conntrack *fresh
    if (nfct.nfct_attr_is_set(state.object, nfct.ATTR_SECCTX) > 0
            or nfct.nfct_attr_is_set(state.object, nfct.ATTR_CONNLABELS) > 0
            or nfct.nfct_attr_is_set(state.object, nfct.ATTR_HELPER_INFO) > 0):
        fresh = nfct.nfct_new()
        if fresh == NULL:
            return -ENOMEM
        nfct.nfct_destroy(state.object)
        state.object = fresh
    else:
        nfct.nfct_copy(state.object, state.empty, nfct.NFCT_CP_OVERRIDE)
    return 0


cdef void _message(_decoding *state, const nlmsghdr *message) noexcept nogil:
    cdef flow_t *out
    cdef int type = NFNL_MSG_TYPE(message.nlmsg_type)
    if NFNL_SUBSYS_ID(message.nlmsg_type) != NFNL_SUBSYS_CTNETLINK or (
            type != IPCTNL_MSG_CT_NEW and type != IPCTNL_MSG_CT_DELETE):
        return
    if state.count == state.room:
        state.errors += 1
        return
    out = state.out + state.count
    memset(out, 0, sizeof(flow_t))
    if state.by_library or not direct_decode(<const uint8_t *>message, message.nlmsg_len, out):
        if not nfct_fast_ct_message(message, message.nlmsg_len) or _reset(state) < 0 or (
                nfct.nfct_nlmsg_parse(message, state.object) < 0):
            state.errors += 1
            return
        memset(out, 0, sizeof(flow_t))
        _copy_flow(state.object, out)
        out.occurred = event_time(<const uint8_t *>message, message.nlmsg_len)
    if type == IPCTNL_MSG_CT_DELETE:
        out.type = EVENT_DESTROY
    elif message.nlmsg_flags & (NLM_F_CREATE | NLM_F_EXCL):
        out.type = EVENT_NEW
    else:
        out.type = EVENT_UPDATE
    out.time = state.time
    out.netns = state.netns
    state.count += 1


@cython.final
@cython.auto_pickle(False)
cdef class FlowDecoder:
    """A decoder of conntrack messages into flow_t, with one library object that is reused.

    Args:
        by_library: Have the library decode all messages, even those of the usual form.
    """

    def __cinit__(self, bint by_library=False):
        self.state.by_library = by_library
        self.state.object = nfct.nfct_new()
        self.state.empty = nfct.nfct_new()
        if self.state.object == NULL or self.state.empty == NULL:
            raise MemoryError("nfct_new")

    def __dealloc__(self):
        if self.state.object != NULL:
            nfct.nfct_destroy(self.state.object)
        if self.state.empty != NULL:
            nfct.nfct_destroy(self.state.empty)

    @property
    def errors(self) -> int:
        """Number of messages that could not be decoded so far, int."""
        return self.state.errors

    cdef int decode(self, const void *buffer, size_t length, flow_t *out, int room, int64_t time,
                    uint16_t netns) noexcept nogil:
        """Decode one datagram into out[0..room). Return how many flows it has, or -errno.

        A flow takes at least 88 bytes of a message, so room = length / 88 + 1 is always enough.
        """
        cdef const char *at = <const char *>buffer
        cdef const nlmsghdr *message
        cdef int32_t error = 0
        self.state.out = out
        self.state.room = room
        self.state.count = 0
        self.state.time = time
        self.state.netns = netns
        self.ended = self.interrupted = False
        # mnl_cb_run() is not used, as that of libmnl 1.0.4 accepts lengths above INT_MAX.
        while length >= sizeof(nlmsghdr):
            message = <const nlmsghdr *>at
            if message.nlmsg_len < sizeof(nlmsghdr) or message.nlmsg_len > length:
                self.state.errors += 1
                break
            if message.nlmsg_flags & NLM_F_DUMP_INTR and message.nlmsg_flags & NLM_F_MULTI:
                self.interrupted = True
            if message.nlmsg_type == NLMSG_DONE:
                self.ended = True
                if message.nlmsg_len >= sizeof(nlmsghdr) + sizeof(error):
                    memcpy(&error, at + sizeof(nlmsghdr), sizeof(error))
                # This is also how a dump ends that the kernel could not continue.
                self.interrupted = self.interrupted or error < 0
                error = 0
                break
            if message.nlmsg_type == NLMSG_ERROR:
                self.ended = True
                if message.nlmsg_len >= sizeof(nlmsghdr) + sizeof(error):
                    memcpy(&error, at + sizeof(nlmsghdr), sizeof(error))
                break
            _message(&self.state, message)
            if length - message.nlmsg_len < 4:
                break
            length -= (message.nlmsg_len + 3) & ~3
            at += (message.nlmsg_len + 3) & ~3
        return self.state.count if self.state.count or error >= 0 else error
