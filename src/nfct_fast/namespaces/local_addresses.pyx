"""The local addresses of one network namespace, kept current by rtnetlink.

The kernel decides by its routes of type "local" which addresses are local. So this reads those routes instead of the
interfaces' addresses: they include AnyIP prefixes, and leave out addresses that are not usable yet (IPv6 duplicate
address detection).
"""
cimport cython
from libc.errno cimport E2BIG, EAGAIN, EBADMSG, EBUSY, EINTR, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset
from posix.unistd cimport close

from linux_filter cimport (
    BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, sock_filter, sock_fprog,
)
from linux_netlink cimport (
    NETLINK_GET_STRICT_CHK, NETLINK_ROUTE, NLM_F_DUMP, NLM_F_REQUEST, is_of_kernel, nlmsghdr, sockaddr_nl)
from linux_rtnetlink cimport (
    RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE, RTMGRP_LINK, RTN_LOCAL, rtmsg,
)
from sys_socket cimport (
    AF_INET, AF_INET6, AF_NETLINK, MSG_DONTWAIT, SO_ATTACH_FILTER, SOCK_CLOEXEC, SOCK_RAW, SOL_NETLINK, SOL_SOCKET,
    bind, connect, recvfrom, setsockopt, sockaddr, socket, socklen_t,
)

from nfct_fast.namespaces.local_routes cimport local_routes_t, routes_add_message, routes_find, routes_free
from nfct_fast.kernel.netlink_query cimport netquery_close, netquery_dump, netquery_adopt

import ipaddress
import os

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t htons(uint16_t)

cdef enum:
    DUMP_TRIES = 4
    RECEIVE_MAX = 1024

ctypedef struct route_request_t:
    nlmsghdr header
    rtmsg body


cdef int attach_filter(int fd) noexcept nogil:
    # The routes of a router may change thousands of times a second: let only those of type local through.
    # BPF_H loads in network order, but nlmsg_type is in host order: hence htons.
    cdef sock_filter code[7]
    cdef sock_fprog program
    code[0] = sock_filter(BPF_LD | BPF_H | BPF_ABS, 0, 0, 4)
    code[1] = sock_filter(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, htons(RTM_NEWROUTE))
    code[2] = sock_filter(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, htons(RTM_DELROUTE))
    code[3] = sock_filter(BPF_LD | BPF_B | BPF_ABS, 0, 0, sizeof(nlmsghdr) + 7)    # rtm_type
    code[4] = sock_filter(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, RTN_LOCAL)
    code[5] = sock_filter(BPF_RET | BPF_K, 0, 0, 0)
    code[6] = sock_filter(BPF_RET | BPF_K, 0, 0, 0xffffffff)
    program.len = 7
    program.filter = code
    if setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0:
        return -errno
    return 0


cdef void local_addresses_init(local_addresses_t *self) noexcept nogil:
    memset(self, 0, sizeof(self[0]))
    self.monitor = self.query.fd = -1


cdef int local_addresses_open(local_addresses_t *self, uint32_t limit) noexcept nogil:
    cdef int monitor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
    cdef int query = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE) if monitor >= 0 else -1
    return local_addresses_adopt(self, monitor if monitor >= 0 else -errno, query if query >= 0 else -errno, limit)


cdef int local_addresses_adopt(local_addresses_t *self, int monitor, int query, uint32_t limit) noexcept nogil:
    cdef sockaddr_nl address
    cdef int on = 1
    cdef int rc = netquery_adopt(&self.query, query)
    self.dirty = True
    self.limit = limit
    self.monitor = max(monitor, -1)
    self.overruns = self.spoofed = 0
    memset(&self.routes, 0, sizeof(self.routes))
    if monitor < 0:
        rc = monitor
    if rc == 0:
        rc = attach_filter(self.monitor)
    if rc == 0:
        memset(&address, 0, sizeof(address))
        address.nl_family = AF_NETLINK
        # RTMGRP_LINK, as IPv4 does not notify of a route that vanishes because its link is removed or moved to a VRF.
        address.nl_groups = (RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE
                             | RTMGRP_IPV6_ROUTE)
        if bind(self.monitor, <const sockaddr *>&address, sizeof(address)) < 0:
            rc = -errno
    if rc == 0:
        address.nl_groups = 0
        if connect(self.monitor, <const sockaddr *>&address, sizeof(address)) < 0:
            rc = -errno
    if rc == 0:
        # Since 4.20; older kernels ignore the requested type and send all routes.
        setsockopt(self.query.fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on))
    if rc == 0:
        rc = local_addresses_refresh(self)
    if rc < 0:
        local_addresses_close(self)
        return rc
    return 0


cdef void local_addresses_close(local_addresses_t *self) noexcept nogil:
    if self.monitor >= 0:
        close(self.monitor)
    netquery_close(&self.query)
    routes_free(&self.routes)
    self.monitor = -1


cdef struct reading_t:
    local_routes_t *into
    uint32_t limit


cdef int add_route(uint16_t type, const uint8_t *message, size_t size, void *context) noexcept nogil:
    cdef reading_t *reading = <reading_t *>context
    if type != RTM_NEWROUTE:
        return 0
    if reading.limit and reading.into.count >= reading.limit:
        return -E2BIG
    return routes_add_message(reading.into, message + sizeof(nlmsghdr), size - sizeof(nlmsghdr))


cdef int dump_family(local_addresses_t *self, local_routes_t *into, uint8_t family) noexcept nogil:
    """Read all local routes of one family. 0, -EAGAIN if they changed meanwhile, or another -errno."""
    cdef reading_t reading = reading_t(into, self.limit)
    cdef route_request_t request
    cdef bint changed = False
    cdef int rc
    memset(&request, 0, sizeof(request))
    request.header.nlmsg_len = sizeof(request)
    request.header.nlmsg_type = RTM_GETROUTE
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP
    request.body.rtm_family = family
    request.body.rtm_type = RTN_LOCAL
    rc = netquery_dump(&self.query, &request.header, add_route, &reading, &changed)
    if rc == -EAGAIN:      # the dump ended prematurely
        return -EBADMSG
    return -EAGAIN if rc == 0 and changed else rc


cdef int local_addresses_dump(local_addresses_t *self) noexcept nogil:
    cdef local_routes_t new
    cdef int rc = 0
    cdef int _
    for _ in range(DUMP_TRIES):
        memset(&new, 0, sizeof(new))
        rc = dump_family(self, &new, AF_INET)
        if rc == 0:
            rc = dump_family(self, &new, AF_INET6)
        if rc == 0:
            routes_free(&self.routes)
            self.routes = new
            return 0
        routes_free(&new)
        if rc != -EAGAIN and rc != -EBUSY:
            break
    return rc


cdef int local_addresses_receive(local_addresses_t *self) noexcept nogil:
    cdef uint8_t buffer[64]
    cdef sockaddr_nl sender
    cdef socklen_t length
    cdef int _
    for _ in range(RECEIVE_MAX):
        length = sizeof(sender)
        if recvfrom(self.monitor, buffer, sizeof(buffer), MSG_DONTWAIT, <sockaddr *>&sender, &length) >= 0:
            if is_of_kernel(&sender, length):
                self.dirty = True
            else:
                self.spoofed += 1
        elif errno == ENOBUFS:
            self.overruns += 1
            self.dirty = True
        elif errno == EAGAIN:
            break
        elif errno != EINTR:
            return -errno
    return 0


cdef int local_addresses_read(local_addresses_t *self) noexcept nogil:
    cdef int rc
    if not self.dirty:
        return 0
    rc = local_addresses_dump(self)
    if rc < 0:
        return rc
    self.dirty = False
    return 1


cdef int local_addresses_refresh(local_addresses_t *self) noexcept nogil:
    cdef int rc = local_addresses_receive(self)
    return local_addresses_read(self) if rc == 0 else rc


cdef int local_addresses_find(const local_addresses_t *self, const uint8_t *addr, int family) noexcept nogil:
    return routes_find(&self.routes, addr, family)


@cython.final
@cython.auto_pickle(False)
cdef class LocalAddresses:
    """The local addresses of the calling thread's network namespace, according to the kernel's routing tables.

    127.0.0.0/8 and ::1 are always local; broadcast, multicast and IPv6 anycast addresses are not. Needs no privilege
    and never waits. After close(), only loopback is local. One thread at a time.
    """

    def __cinit__(self):
        local_addresses_init(&self.addresses)

    def __init__(self):
        self.close()
        cdef int rc
        with nogil:
            rc = local_addresses_open(&self.addresses, 0)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "rtnetlink")

    def __dealloc__(self):
        local_addresses_close(&self.addresses)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Close the sockets and forget the addresses; a second call does nothing."""
        local_addresses_close(&self.addresses)

    def fileno(self) -> int:
        """Return a descriptor that is readable when addresses may have changed and update() is due; -1 once closed."""
        return self.addresses.monitor

    def update(self) -> bool:
        """Apply changes, without waiting. Return whether the addresses were read again. OSError."""
        cdef int rc
        if self.addresses.monitor < 0:
            raise ValueError("LocalAddresses is closed")
        with nogil:
            rc = local_addresses_refresh(&self.addresses)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "rtnetlink")
        return rc == 1

    def __contains__(self, address):
        return self.ifindex(address) is not None

    def ifindex(self, address):
        """Return the index of the interface with this address (any form ipaddress takes), None if it is not local."""
        cdef bytes packed = ipaddress.ip_address(address).packed
        cdef int found = local_addresses_find(&self.addresses, <const uint8_t *>packed,
                                        AF_INET if len(packed) == 4 else AF_INET6)
        return found if found >= 0 else None

    @property
    def spoofed(self) -> int:
        """Datagrams ignored because a process sent them, not the kernel."""
        return self.addresses.spoofed + self.addresses.query.spoofed

    @property
    def overruns(self) -> int:
        """How often notifications were lost, so that everything was read again."""
        return self.addresses.overruns
