"""A set of addresses and prefixes, filled from the kernel's messages about local routes."""
from libc.errno cimport EBADMSG, ENOMEM
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from linux_netlink cimport nlattr
from linux_rtnetlink cimport RT_TABLE_LOCAL, RTA_DST, RTA_OIF, RTN_LOCAL, RTPROT_KERNEL, rtmsg
from sys_socket cimport AF_INET, AF_INET6

import ipaddress

cdef enum:
    LOOPBACK_IFINDEX = 1    # in every namespace, since 2.6.26

cdef const char *LOOPBACK4 = b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f"
cdef const char *LOOPBACK6 = b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"


cdef void table_free(address_table_t *self) noexcept nogil:
    free(self.hosts)
    free(self.prefixes)
    memset(self, 0, sizeof(self[0]))


cdef uint32_t address_hash(const uint8_t *addr) noexcept nogil:
    cdef uint32_t part, h = 0
    cdef int i
    for i in range(4):
        memcpy(&part, addr + 4 * i, 4)
        h = (h ^ part) * <uint32_t>0x9e3779b1
        h ^= h >> 15
    return h


cdef void host_put(address_t *hosts, uint32_t mask, const address_t *new) noexcept nogil:
    cdef uint32_t i = address_hash(new.addr) & mask
    while hosts[i].bits and memcmp(hosts[i].addr, new.addr, 16) != 0:
        i = (i + 1) & mask
    hosts[i] = new[0]


cdef int table_add(address_table_t *self, const address_t *new) noexcept nogil:
    cdef address_t *grown
    cdef uint32_t i, mask
    if new.bits != 128:
        if self.prefix_count & (self.prefix_count - 1) == 0:
            grown = <address_t *>realloc(self.prefixes, (2 * self.prefix_count or 1) * sizeof(address_t))
            if grown == NULL:
                return -ENOMEM
            self.prefixes = grown
        self.prefixes[self.prefix_count] = new[0]
        self.prefix_count += 1
        return 0
    if self.hosts == NULL or 2 * (self.host_count + 1) > self.mask:
        mask = 2 * self.mask + 1 if self.hosts != NULL else 31
        grown = <address_t *>calloc(<size_t>mask + 1, sizeof(address_t))
        if grown == NULL:
            return -ENOMEM
        if self.hosts != NULL:
            for i in range(self.mask + 1):
                if self.hosts[i].bits:
                    host_put(grown, mask, &self.hosts[i])
        free(self.hosts)
        self.hosts = grown
        self.mask = mask
    host_put(self.hosts, self.mask, new)
    self.host_count += 1
    return 0


cdef void map_address(uint8_t *out, const uint8_t *addr, size_t size) noexcept nogil:
    memset(out, 0, 16)
    if size == 4:
        out[10] = out[11] = 0xff
        memcpy(out + 12, addr, 4)
    else:
        memcpy(out, addr, size)


cdef int table_add_route(address_table_t *self, const uint8_t *at, size_t left) noexcept nogil:
    """One RTM_NEWROUTE without its header. 1 added, 0 not a local address, -errno."""
    cdef rtmsg route
    cdef nlattr attr
    cdef address_t new
    cdef size_t step, size
    if left < sizeof(route):
        return -EBADMSG
    memcpy(&route, at, sizeof(route))
    if route.rtm_type != RTN_LOCAL or (route.rtm_family != AF_INET and route.rtm_family != AF_INET6):
        return 0
    # A VRF keeps its local routes in a table of its own, made by the kernel; but those that a proxy sets up for
    # marked packets ("local default dev lo table 100") do not make the whole world local.
    if route.rtm_table != RT_TABLE_LOCAL and route.rtm_protocol != RTPROT_KERNEL:
        return 0
    size = 4 if route.rtm_family == AF_INET else 16
    if route.rtm_dst_len > 8 * size:
        return -EBADMSG
    memset(&new, 0, sizeof(new))
    if size == 4:
        new.addr[10] = new.addr[11] = 0xff      # RTA_DST is not there in "local default"
    new.bits = route.rtm_dst_len + 128 - 8 * size
    at += sizeof(route)
    left -= sizeof(route)
    while left >= sizeof(attr):
        memcpy(&attr, at, sizeof(attr))
        if attr.nla_len < sizeof(attr) or attr.nla_len > left:
            return -EBADMSG
        if attr.nla_type == RTA_DST and attr.nla_len == sizeof(attr) + size:
            map_address(new.addr, at + sizeof(attr), size)
        elif attr.nla_type == RTA_OIF and attr.nla_len == sizeof(attr) + 4:
            memcpy(&new.ifindex, at + sizeof(attr), 4)
        step = (attr.nla_len + 3) & ~(<size_t>3)
        if step >= left:
            break
        at += step
        left -= step
    cdef int rc = table_add(self, &new)
    return rc if rc < 0 else 1


cdef bint has_prefix(const uint8_t *addr, const address_t *prefix) noexcept nogil:
    cdef int whole = prefix.bits // 8
    cdef int rest = prefix.bits % 8
    if memcmp(addr, prefix.addr, whole) != 0:
        return False
    return rest == 0 or (addr[whole] ^ prefix.addr[whole]) >> (8 - rest) == 0


cdef int table_find(const address_table_t *self, const uint8_t *addr, int family) noexcept nogil:
    cdef uint8_t key[16]
    cdef uint32_t i
    if family == AF_INET:
        map_address(key, addr, 4)
    elif family == AF_INET6:
        memcpy(key, addr, 16)
    else:
        return -1
    if self.hosts != NULL:
        i = address_hash(key) & self.mask
        while self.hosts[i].bits:
            if memcmp(self.hosts[i].addr, key, 16) == 0:
                return self.hosts[i].ifindex
            i = (i + 1) & self.mask
    for i in range(self.prefix_count):
        if has_prefix(key, &self.prefixes[i]):
            return self.prefixes[i].ifindex
    # Also while "lo" is down, and in the moments before it is up.
    if memcmp(key, LOOPBACK4, 13) == 0 or memcmp(key, LOOPBACK6, 16) == 0:
        return LOOPBACK_IFINDEX
    return -1


def parse_route(bytes message, address):
    """Whether an RTM_NEWROUTE (without its netlink header) makes the address local; an errno as a negative int."""
    cdef address_table_t table
    cdef bytes packed = ipaddress.ip_address(address).packed
    cdef int rc, found
    memset(&table, 0, sizeof(table))
    rc = table_add_route(&table, <const uint8_t *>message, len(message))
    found = table_find(&table, <const uint8_t *>packed, AF_INET if len(packed) == 4 else AF_INET6)
    table_free(&table)
    return rc if rc < 0 else found >= 0
