"""A set of addresses and prefixes, filled from the kernel's messages about local routes."""
from libc.errno cimport EBADMSG, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from linux_netlink cimport nlattr
from linux_rtnetlink cimport RT_TABLE_LOCAL, RTA_DST, RTA_OIF, RTN_LOCAL, RTPROT_KERNEL, rtmsg
from sys_socket cimport AF_INET, AF_INET6

import ipaddress

cdef extern from "<endian.h>" nogil:
    uint32_t be32toh(uint32_t value)
    uint64_t be64toh(uint64_t value)

cdef enum:
    LOOPBACK_IFINDEX = 1    # in every namespace, since 2.6.26
    MAPPED = 0xffff         # the upper half of the lower word of ::ffff:0:0/96


cdef void table_free(address_table_t *self) noexcept nogil:
    free(self.hosts)
    free(self.prefixes)
    memset(self, 0, sizeof(self[0]))


cdef uint32_t address_hash(const address_t *key) noexcept nogil:
    return <uint32_t>(((key.high * <uint64_t>0xbf58476d1ce4e5b9 ^ key.low) * <uint64_t>0x9e3779b97f4a7c15) >> 32)


cdef bint address_same(const address_t *a, const address_t *b) noexcept nogil:
    return ((a.high ^ b.high) | (a.low ^ b.low)) == 0


cdef address_t *host_slot(address_t *hosts, uint32_t mask, const address_t *key) noexcept nogil:
    """Where the address is, or would be put: then its bits are 0."""
    cdef uint32_t i = address_hash(key) & mask
    while hosts[i].bits and not address_same(&hosts[i], key):
        i = (i + 1) & mask
    return &hosts[i]


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
                    host_slot(grown, mask, &self.hosts[i])[0] = self.hosts[i]
        free(self.hosts)
        self.hosts = grown
        self.mask = mask
    host_slot(self.hosts, self.mask, new)[0] = new[0]
    self.host_count += 1
    return 0


cdef int table_join(address_table_t *self, const address_table_t *other) noexcept nogil:
    cdef uint32_t i, k
    cdef int rc = 0
    if other.hosts != NULL:
        for i in range(other.mask + 1):
            if rc == 0 and other.hosts[i].bits:
                rc = table_add(self, &other.hosts[i])
    for i in range(other.prefix_count):
        for k in range(self.prefix_count):      # every namespace has 127.0.0.0/8
            if self.prefixes[k].bits == other.prefixes[i].bits and address_same(&self.prefixes[k], &other.prefixes[i]):
                break
        else:
            rc = table_add(self, &other.prefixes[i]) or rc
    return rc


cdef void map_address(address_t *out, const uint8_t *addr, size_t size) noexcept nogil:
    cdef uint64_t words[2]
    cdef uint32_t word
    if size == 4:
        memcpy(&word, addr, 4)
        out.high = 0
        out.low = <uint64_t>MAPPED << 32 | be32toh(word)
    else:
        memcpy(words, addr, 16)
        out.high = be64toh(words[0])
        out.low = be64toh(words[1])


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
        new.low = <uint64_t>MAPPED << 32        # RTA_DST is not there in "local default"
    new.bits = route.rtm_dst_len + 128 - 8 * size
    at += sizeof(route)
    left -= sizeof(route)
    while left >= sizeof(attr):
        memcpy(&attr, at, sizeof(attr))
        if attr.nla_len < sizeof(attr) or attr.nla_len > left:
            return -EBADMSG
        if attr.nla_type == RTA_DST and attr.nla_len == sizeof(attr) + size:
            map_address(&new, at + sizeof(attr), size)
        elif attr.nla_type == RTA_OIF and attr.nla_len == sizeof(attr) + 4:
            memcpy(&new.ifindex, at + sizeof(attr), 4)
        step = (attr.nla_len + 3) & ~(<size_t>3)
        if step >= left:
            break
        at += step
        left -= step
    cdef int rc = table_add(self, &new)
    return rc if rc < 0 else 1


cdef bint has_prefix(const address_t *key, const address_t *prefix) noexcept nogil:
    if prefix.bits > 64:
        return key.high == prefix.high and (key.low ^ prefix.low) >> (128 - prefix.bits) == 0
    return prefix.bits == 0 or (key.high ^ prefix.high) >> (64 - prefix.bits) == 0


cdef int table_find(const address_table_t *self, const uint8_t *addr, int family) noexcept nogil:
    cdef address_t key
    cdef const address_t *host
    cdef uint32_t i
    if family != AF_INET and family != AF_INET6:
        return -1
    map_address(&key, addr, 4 if family == AF_INET else 16)
    if self.hosts != NULL:
        host = host_slot(self.hosts, self.mask, &key)
        if host.bits:
            return host.ifindex
    for i in range(self.prefix_count):
        if has_prefix(&key, &self.prefixes[i]):
            return self.prefixes[i].ifindex
    # Also while "lo" is down, and in the moments before it is up.
    if key.high == 0 and (key.low >> 24 == (<uint64_t>MAPPED << 8 | 127) or key.low == 1):
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
