"""The interfaces of one network namespace: which ones lead into other namespaces, and by which one a packet leaves."""
from libc.errno cimport E2BIG, EAGAIN, EBADMSG, EHOSTUNREACH, ENOMEM
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from linux_netlink cimport NLA_TYPE_MASK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, nlattr, nlmsghdr
from linux_rtnetlink cimport (
    IFLA_EXT_MASK, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, NETNSA_FD, NETNSA_NSID,
    RTA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_OIF, RTEXT_FILTER_SKIP_STATS, RTM_GETLINK, RTM_GETNSID, RTM_GETROUTE,
    RTM_NEWLINK, RTM_NEWNSID, RTM_NEWROUTE, RTN_UNICAST, ifinfomsg, rtgenmsg, rtmsg,
)
from sys_socket cimport AF_INET

from nfct_fast.kernel.netlink_query cimport NETQUERY_SIZE, netquery_request, netquery_dump, netquery_receive, netquery_t

ctypedef struct link_request_t:
    nlmsghdr header
    ifinfomsg body
    nlattr attr
    uint32_t mask

ctypedef struct nsid_request_t:
    nlmsghdr header
    rtgenmsg body
    uint8_t pad[3]
    nlattr attr
    int32_t fd

ctypedef struct route_request_t:
    nlmsghdr header
    rtmsg body
    nlattr attr
    uint8_t addr[16]


cdef const uint8_t *attribute(const uint8_t **at, size_t *left, uint16_t *type, size_t *size) noexcept nogil:
    """Return the data of the next attribute, with its type and size, and move *at past it; NULL if there is none."""
    cdef nlattr attr
    cdef const uint8_t *data = at[0] + sizeof(attr)
    cdef size_t step
    if left[0] < sizeof(attr):
        return NULL
    memcpy(&attr, at[0], sizeof(attr))
    if attr.nla_len < sizeof(attr) or attr.nla_len > left[0]:
        return NULL
    type[0] = attr.nla_type & NLA_TYPE_MASK
    size[0] = attr.nla_len - sizeof(attr)
    step = min(left[0], (<size_t>attr.nla_len + 3) & ~(<size_t>3))
    at[0] += step
    left[0] -= step
    return data


cdef bint is_kind(const uint8_t *data, size_t size, const char *kind, size_t length) noexcept nogil:
    return size >= length and memcmp(data, kind, length) == 0 and (size == length or data[length] == 0)


cdef link_kind_t kind_of(const uint8_t *at, size_t left) noexcept nogil:
    cdef const uint8_t *data
    cdef uint16_t type = 0
    cdef size_t size = 0
    while True:
        data = attribute(&at, &left, &type, &size)
        if data == NULL:
            return LINK_OTHER
        if type == IFLA_INFO_KIND:
            break
    if is_kind(data, size, b"veth", 4) or is_kind(data, size, b"netkit", 6):
        return LINK_PAIR
    if is_kind(data, size, b"macvlan", 7) or is_kind(data, size, b"ipvlan", 6):
        return LINK_ABOVE
    if is_kind(data, size, b"bridge", 6) or is_kind(data, size, b"bond", 4) or is_kind(data, size, b"team", 4):
        return LINK_GROUP
    return LINK_NOWHERE if is_kind(data, size, b"dummy", 5) else LINK_OTHER


cdef int parse_link(const uint8_t *at, size_t left, link_t *out) noexcept nogil:
    """Parse an RTM_NEWLINK message, given without its header. 0 or -EBADMSG."""
    cdef ifinfomsg body
    cdef const uint8_t *data
    cdef uint16_t type = 0
    cdef size_t size = 0
    if left < sizeof(body):
        return -EBADMSG
    memcpy(&body, at, sizeof(body))
    memset(out, 0, sizeof(out[0]))
    out.ifindex = body.ifi_index
    out.nsid = -1
    out.kind = LINK_NOWHERE if body.ifi_index == 1 else LINK_OTHER     # loopback is number 1, since 2.6.26
    at += sizeof(body)
    left -= sizeof(body)
    while True:
        data = attribute(&at, &left, &type, &size)
        if data == NULL:
            return 0
        if type == IFLA_LINKINFO:
            out.kind = kind_of(data, size)
        elif size != 4:
            continue
        elif type == IFLA_LINK:
            memcpy(&out.other, data, 4)
        elif type == IFLA_MASTER:
            memcpy(&out.master, data, 4)
        elif type == IFLA_LINK_NETNSID:
            memcpy(&out.nsid, data, 4)


cdef struct reading_t:
    links_t *into
    uint32_t most


cdef int add_link(uint16_t type, const uint8_t *message, size_t size, void *context) noexcept nogil:
    cdef reading_t *reading = <reading_t *>context
    cdef links_t *into = reading.into
    cdef link_t *grown
    cdef int rc
    if type != RTM_NEWLINK:
        return 0
    if into.count >= reading.most:
        return -E2BIG
    if into.count == into.room:
        grown = <link_t *>realloc(into.at, (2 * into.room or 8) * sizeof(link_t))
        if grown == NULL:
            return -ENOMEM
        into.at = grown
        into.room = 2 * into.room or 8
    rc = parse_link(message + sizeof(nlmsghdr), size - sizeof(nlmsghdr), &into.at[into.count])
    if rc == 0:
        into.count += 1
    return rc


cdef int links_read(netquery_t *query, links_t *out, uint32_t most) noexcept nogil:
    cdef reading_t reading = reading_t(out, most)
    cdef link_request_t request
    cdef bint changed = False      # ignored: there is a notification of each change as well
    memset(&request, 0, sizeof(request))
    request.header.nlmsg_len = sizeof(request)
    request.header.nlmsg_type = RTM_GETLINK
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP
    request.attr.nla_len = sizeof(request.attr) + sizeof(request.mask)
    request.attr.nla_type = IFLA_EXT_MASK
    request.mask = RTEXT_FILTER_SKIP_STATS
    return netquery_dump(query, &request.header, add_link, &reading, &changed)


cdef void links_free(links_t *self) noexcept nogil:
    free(self.at)
    memset(self, 0, sizeof(self[0]))


cdef ssize_t receive_reply(netquery_t *query, uint16_t type, uint8_t *buffer) noexcept nogil:
    """Receive the reply to the last request into a buffer of NETQUERY_SIZE bytes. Return its size, or -errno."""
    cdef nlmsghdr header
    cdef int32_t error
    cdef ssize_t got
    while True:
        got = netquery_receive(query, buffer)
        if got < 0:
            return got
        if <size_t>got < sizeof(header):
            return -EBADMSG
        memcpy(&header, buffer, sizeof(header))
        if header.nlmsg_seq != query.seq:
            continue
        if header.nlmsg_len < sizeof(header) or header.nlmsg_len > <size_t>got:
            return -EBADMSG
        if header.nlmsg_type == NLMSG_ERROR and header.nlmsg_len >= sizeof(header) + sizeof(error):
            memcpy(&error, buffer + sizeof(header), sizeof(error))
            return error if error < 0 else -EAGAIN
        return <ssize_t>header.nlmsg_len if header.nlmsg_type == type else -EBADMSG


cdef int links_nsid(netquery_t *query, int fd, int32_t *nsid) noexcept nogil:
    cdef uint8_t buffer[NETQUERY_SIZE]
    cdef nsid_request_t request
    cdef const uint8_t *at = buffer + sizeof(nlmsghdr) + 4     # struct rtgenmsg, padded
    cdef const uint8_t *data
    cdef uint16_t type = 0
    cdef size_t size = 0, left
    cdef ssize_t got
    memset(&request, 0, sizeof(request))
    request.header.nlmsg_len = sizeof(request)
    request.header.nlmsg_type = RTM_GETNSID
    request.header.nlmsg_flags = NLM_F_REQUEST
    request.attr.nla_len = sizeof(request.attr) + sizeof(request.fd)
    request.attr.nla_type = NETNSA_FD
    request.fd = fd
    nsid[0] = -1
    got = netquery_request(query, &request.header)
    if got == 0:
        got = receive_reply(query, RTM_NEWNSID, buffer)
    if got < 0:
        return <int>got
    left = max(0, got - <ssize_t>(sizeof(nlmsghdr) + 4))
    while True:
        data = attribute(&at, &left, &type, &size)
        if data == NULL:
            return 0
        if type == NETNSA_NSID and size == 4:
            memcpy(nsid, data, 4)


cdef int route_read(netquery_t *query, const uint8_t *addr, int family, route_t *out) noexcept nogil:
    cdef uint8_t buffer[NETQUERY_SIZE]
    cdef route_request_t request
    cdef rtmsg body
    cdef const uint8_t *at = buffer + sizeof(nlmsghdr) + sizeof(body)
    cdef const uint8_t *data
    cdef uint16_t type = 0
    cdef size_t size = 0, left, length = 4 if family == AF_INET else 16
    cdef ssize_t got
    memset(&request, 0, sizeof(request))
    memset(out, 0, sizeof(out[0]))
    request.header.nlmsg_len = sizeof(request) - 16 + length
    request.header.nlmsg_type = RTM_GETROUTE
    request.header.nlmsg_flags = NLM_F_REQUEST
    request.body.rtm_family = family
    request.body.rtm_dst_len = 8 * length
    request.attr.nla_len = sizeof(request.attr) + length
    request.attr.nla_type = RTA_DST
    memcpy(request.addr, addr, length)
    got = netquery_request(query, &request.header)
    if got == 0:
        got = receive_reply(query, RTM_NEWROUTE, buffer)
    if got < 0:
        return <int>got
    if got < <ssize_t>(sizeof(nlmsghdr) + sizeof(body)):
        return -EBADMSG
    memcpy(&body, buffer + sizeof(nlmsghdr), sizeof(body))
    if body.rtm_type != RTN_UNICAST:
        return -EHOSTUNREACH
    left = got - sizeof(nlmsghdr) - sizeof(body)
    while True:
        data = attribute(&at, &left, &type, &size)
        if data == NULL:
            return 0 if out.ifindex else -EHOSTUNREACH
        if type == RTA_MULTIPATH:
            return -EHOSTUNREACH
        if type == RTA_OIF and size == 4:
            memcpy(&out.ifindex, data, 4)
        elif type == RTA_GATEWAY and size == length:
            out.has_gateway = True
            memcpy(out.gateway, data, length)
