"""Build sock_diag requests for one tuple, and match the replies against it.

These are pure functions over bytes. A reply counts only if its own addresses and ports fit the tuple of the request.
"""
from libc.errno cimport EBADMSG, EAGAIN, ENOENT
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from linux_inet_diag cimport (
    INET_DIAG_CGROUP_ID, INET_DIAG_NOCOOKIE, INET_DIAG_SKV6ONLY, SOCK_DIAG_BY_FAMILY,
    inet_diag_msg,
)
from linux_netlink cimport (
    NLA_TYPE_MASK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, nlattr, nlmsghdr,
)

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_info cimport (
    SOCK_CGROUP, SOCK_COOKIE, SOCK_EXACT, SOCK_LISTENER, SOCK_UID, SOCK_WILDCARD,
)

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET, AF_INET6

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_LISTEN, TCP_TIME_WAIT


cdef bint diag_has_ports(uint8_t proto) noexcept nogil:
    return proto == IPPROTO_TCP or proto == IPPROTO_UDP or proto == IPPROTO_UDPLITE


cdef bint is_mapped(const uint8_t *addr) noexcept nogil:
    cdef int i
    for i in range(10):
        if addr[i]:
            return False
    return addr[10] == 0xff and addr[11] == 0xff


cdef bint is_zero(const uint8_t *addr, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        if addr[i]:
            return False
    return True


cdef void request_head(diag_request_t *out, const tuple_t *tuple, uint8_t family, uint16_t flags) noexcept nogil:
    memset(out, 0, sizeof(out[0]))
    out.header.nlmsg_len = sizeof(out[0])
    out.header.nlmsg_type = SOCK_DIAG_BY_FAMILY
    out.header.nlmsg_flags = flags
    out.body.sdiag_family = family
    out.body.sdiag_protocol = tuple.proto
    out.body.id.idiag_cookie[0] = INET_DIAG_NOCOOKIE
    out.body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE


cdef void diag_request(diag_request_t *out, const tuple_t *tuple, uint32_t ifindex) noexcept nogil:
    cdef const uint8_t *local = &tuple.src[0]
    cdef const uint8_t *remote = &tuple.dst[0]
    cdef uint8_t family = tuple.family
    # The kernel's IPv6 look-up converts mapped addresses to IPv4 for TCP, but not for UDP. Make both requests as IPv4.
    if family == AF_INET6 and is_mapped(local) and is_mapped(remote):
        family = AF_INET
        local += 12
        remote += 12
    cdef size_t size = 4 if family == AF_INET else 16
    request_head(out, tuple, family, NLM_F_REQUEST)
    out.body.idiag_states = 0xffffffff
    out.body.id.idiag_if = ifindex
    if tuple.proto == IPPROTO_TCP:
        memcpy(out.body.id.idiag_src, local, size)
        memcpy(out.body.id.idiag_dst, remote, size)
        out.body.id.idiag_sport = htons(tuple.sport)
        out.body.id.idiag_dport = htons(tuple.dport)
    else:
        # udp_dump_one() passes src and dst to the look-up for incoming packets: "swapped for historical reasons".
        memcpy(out.body.id.idiag_src, remote, size)
        memcpy(out.body.id.idiag_dst, local, size)
        out.body.id.idiag_sport = htons(tuple.dport)
        out.body.id.idiag_dport = htons(tuple.sport)


cdef void diag_request_dump(diag_request_t *out, const tuple_t *tuple, uint8_t family,
                            uint32_t states) noexcept nogil:
    # The kernel compares the port. In a dump, sport is the local port for UDP as well.
    request_head(out, tuple, family, NLM_F_REQUEST | NLM_F_DUMP)
    out.body.idiag_states = states
    out.body.id.idiag_sport = htons(tuple.sport)


cdef uint8_t address_fit(const uint8_t *wanted, uint8_t wanted_family, const uint8_t *actual,
                         uint8_t actual_family) noexcept nogil:
    if wanted_family == AF_INET6 and is_mapped(wanted):
        wanted += 12
        wanted_family = AF_INET
    if actual_family == AF_INET6 and wanted_family == AF_INET:
        if is_zero(actual, 16):
            return DIAG_WILD
        if not is_mapped(actual):
            return DIAG_GROUP if actual[0] == 0xff else DIAG_OTHER
        actual += 12
    elif actual_family != wanted_family:
        return DIAG_OTHER
    if wanted_family == AF_INET:
        if is_zero(actual, 4):
            return DIAG_WILD
        if memcmp(wanted, actual, 4) == 0:
            return DIAG_EQUAL
        return DIAG_GROUP if actual[0] & 0xf0 == 0xe0 else DIAG_OTHER
    if is_zero(actual, 16):
        return DIAG_WILD
    if memcmp(wanted, actual, 16) == 0:
        return DIAG_EQUAL
    return DIAG_GROUP if actual[0] == 0xff else DIAG_OTHER


cdef void match_attributes(const uint8_t *at, size_t left, const tuple_t *tuple, diag_match_t *out) noexcept nogil:
    cdef nlattr attr
    cdef size_t step
    while left >= sizeof(nlattr):
        memcpy(&attr, at, sizeof(attr))
        if attr.nla_len < sizeof(nlattr) or attr.nla_len > left:
            return
        if attr.nla_type & NLA_TYPE_MASK == INET_DIAG_CGROUP_ID and attr.nla_len == sizeof(nlattr) + 8:
            memcpy(&out.sock.cgroup_id, at + sizeof(nlattr), 8)
            out.sock.has |= SOCK_CGROUP
        elif attr.nla_type & NLA_TYPE_MASK == INET_DIAG_SKV6ONLY and attr.nla_len == sizeof(nlattr) + 1:
            if at[sizeof(nlattr)] and tuple.family == AF_INET:
                out.local = DIAG_OTHER
        step = (attr.nla_len + 3) & ~(<size_t>3)
        if step >= left:
            return
        at += step
        left -= step


cdef int diag_match(const uint8_t *data, size_t size, const tuple_t *tuple, diag_match_t *out) noexcept nogil:
    cdef inet_diag_msg msg
    memset(out, 0, sizeof(out[0]))
    if size < sizeof(nlmsghdr) + sizeof(msg):
        return -EBADMSG
    memcpy(&msg, data + sizeof(nlmsghdr), sizeof(msg))
    if msg.idiag_family != AF_INET and msg.idiag_family != AF_INET6:
        return 0
    if ntohs(msg.id.idiag_sport) != tuple.sport:
        return 0
    out.family = msg.idiag_family
    out.ifindex = msg.id.idiag_if
    out.local = address_fit(tuple.src, tuple.family, <const uint8_t *>msg.id.idiag_src, msg.idiag_family)
    out.remote = address_fit(tuple.dst, tuple.family, <const uint8_t *>msg.id.idiag_dst, msg.idiag_family)
    if out.remote == DIAG_GROUP:
        out.remote = DIAG_OTHER
    elif out.remote == DIAG_EQUAL and ntohs(msg.id.idiag_dport) != tuple.dport:
        out.remote = DIAG_OTHER
    elif out.remote == DIAG_WILD and msg.id.idiag_dport != 0:
        out.remote = DIAG_OTHER
    match_attributes(data + sizeof(nlmsghdr) + sizeof(msg), size - sizeof(nlmsghdr) - sizeof(msg), tuple, out)
    if out.local == DIAG_OTHER:
        return 0
    out.sock.state = msg.idiag_state
    out.sock.inode = msg.idiag_inode
    # Sockets in TIME_WAIT and NEW_SYN_RECV report uid 0 and inode 0 for "unknown", and so do orphans before Linux 6.17,
    # which keeps their uid.
    if msg.idiag_state != TCP_TIME_WAIT and (msg.idiag_inode or msg.idiag_uid):
        out.sock.uid = msg.idiag_uid
        out.sock.has |= SOCK_UID
    if msg.id.idiag_cookie[0] != INET_DIAG_NOCOOKIE or msg.id.idiag_cookie[1] != INET_DIAG_NOCOOKIE:
        out.sock.cookie = <uint64_t>msg.id.idiag_cookie[1] << 32 | msg.id.idiag_cookie[0]
        if out.sock.cookie:
            out.sock.has |= SOCK_COOKIE
    return 1


cdef uint16_t diag_port(const uint8_t *data, size_t size) noexcept nogil:
    cdef inet_diag_msg msg
    if size < sizeof(nlmsghdr) + sizeof(msg):
        return 0
    memcpy(&msg, data + sizeof(nlmsghdr), sizeof(msg))
    return ntohs(msg.id.idiag_sport)


cdef int diag_accept(diag_match_t *match, const tuple_t *tuple) noexcept nogil:
    cdef bint tcp = tuple.proto == IPPROTO_TCP
    if match.local == DIAG_EQUAL and match.remote == DIAG_EQUAL:
        match.sock.kind = SOCK_EXACT
    elif match.remote != DIAG_WILD or match.local == DIAG_GROUP:
        return 0
    elif not tcp:
        match.sock.kind = SOCK_WILDCARD
    elif match.sock.state == TCP_LISTEN:
        match.sock.kind = SOCK_LISTENER
    else:
        return 0
    return 1


cdef int diag_reply(const uint8_t *data, size_t size, uint32_t seq, const tuple_t *tuple,
                    diag_match_t *out) noexcept nogil:
    cdef nlmsghdr header
    cdef int32_t error
    cdef size_t step
    cdef int rc
    while size >= sizeof(header):
        memcpy(&header, data, sizeof(header))
        if header.nlmsg_len < sizeof(header) or header.nlmsg_len > size:
            return -EBADMSG
        if header.nlmsg_seq == seq:
            if header.nlmsg_type == NLMSG_ERROR:
                if header.nlmsg_len < sizeof(header) + sizeof(error):
                    return -EBADMSG
                memcpy(&error, data + sizeof(header), sizeof(error))
                if error == 0 or error == -ENOENT:
                    return 0
                return error if error < 0 and error > -4096 else -EBADMSG
            if header.nlmsg_type == NLMSG_DONE:
                return 0
            if header.nlmsg_type == SOCK_DIAG_BY_FAMILY:
                rc = diag_match(data, header.nlmsg_len, tuple, out)
                return diag_accept(out, tuple) if rc == 1 else rc
        step = (<size_t>header.nlmsg_len + 3) & ~(<size_t>3)
        if step >= size:
            break
        data += step
        size -= step
    return -EAGAIN
