"""A set of local addresses and prefixes, filled from rtnetlink messages about the kernel's local routes."""
from libc.errno cimport EBADMSG, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset

from linux_netlink cimport nlattr
from linux_rtnetlink cimport RT_TABLE_LOCAL, RTA_DST, RTA_OIF, RTN_LOCAL, RTPROT_KERNEL, rtmsg
from sys_socket cimport AF_INET, AF_INET6

import ipaddress

cdef extern from "<endian.h>" nogil:
    uint32_t be32toh(uint32_t value)
    uint64_t be64toh(uint64_t value)

cdef extern from "<sys/syscall.h>" nogil:
    enum: SYS_getrandom

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)     # glibc has getrandom() only since 2.25, and wheels have to run with 2.17

cdef enum:
    LOOPBACK_IFINDEX = 1    # in every namespace, since 2.6.26
    MAPPED = 0xffff         # the upper half of the lower word of ::ffff:0:0/96


cdef void routes_free(local_routes_t *self) noexcept nogil:
    free(self.slots)
    memset(self, 0, sizeof(self[0]))


cdef address_t *slot_of(address_t *slots, uint32_t mask, const uint64_t *secret, const address_t *key) noexcept nogil:
    """Return the slot that holds the prefix, or the free slot in which to put it."""
    cdef uint64_t mixed = (key.high + secret[0]) * (secret[1] | 1) + key.low + key.bits
    cdef uint32_t i = <uint32_t>((mixed ^ mixed >> 32) * (secret[0] | 1) >> 32) & mask
    while slots[i].is_used and ((slots[i].high ^ key.high) | (slots[i].low ^ key.low) | (slots[i].bits ^ key.bits)):
        i = (i + 1) & mask
    return &slots[i]


cdef int routes_grow(local_routes_t *self) noexcept nogil:
    cdef uint32_t i, mask = 2 * self.mask + 1 if self.slots != NULL else 31
    cdef address_t *grown = <address_t *>calloc(<size_t>mask + 1, sizeof(address_t))
    if grown == NULL:
        return -ENOMEM
    if self.slots == NULL and (
            syscall(SYS_getrandom, &self.secret[0], sizeof(self.secret), 0) != <long>sizeof(self.secret)):
        self.secret[0] = <uint64_t>0x9e3779b97f4a7c15
        self.secret[1] = <uint64_t>0xbf58476d1ce4e5b9
    if self.slots != NULL:
        for i in range(self.mask + 1):
            if self.slots[i].is_used:
                slot_of(grown, mask, self.secret, &self.slots[i])[0] = self.slots[i]
    free(self.slots)
    self.slots = grown
    self.mask = mask
    return 0


cdef void add_length(local_routes_t *self, uint8_t bits) noexcept nogil:
    cdef int i = 0
    while i < self.length_count and self.lengths[i] > bits:
        i += 1
    if i < self.length_count and self.lengths[i] == bits:
        return
    memmove(&self.lengths[i + 1], &self.lengths[i], self.length_count - i)
    self.lengths[i] = bits
    self.length_count += 1


cdef int routes_add(local_routes_t *self, const address_t *new) noexcept nogil:
    cdef address_t *slot
    if self.slots == NULL or 2 * (self.count + 1) > self.mask:
        if routes_grow(self) < 0:
            return -ENOMEM
    slot = slot_of(self.slots, self.mask, self.secret, new)
    if not slot.is_used:
        self.count += 1
        add_length(self, new.bits)
    slot[0] = new[0]
    slot.is_used = True
    return 0


cdef int routes_merge(local_routes_t *self, const local_routes_t *other) noexcept nogil:
    cdef uint32_t i
    cdef int rc = 0
    if other.slots != NULL:
        for i in range(other.mask + 1):
            if rc == 0 and other.slots[i].is_used:
                rc = routes_add(self, &other.slots[i])
    return rc


cdef void truncate(address_t *key, uint8_t bits) noexcept nogil:
    """Clear all bits beyond the prefix length."""
    key.bits = bits
    if bits <= 64:
        key.low = 0
        key.high = key.high >> (64 - bits) << (64 - bits) if bits else 0
    elif bits < 128:
        key.low = key.low >> (128 - bits) << (128 - bits)


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


cdef int routes_add_message(local_routes_t *self, const uint8_t *at, size_t left) noexcept nogil:
    """See local_routes.pxd."""
    cdef rtmsg route
    cdef nlattr attr
    cdef address_t new
    cdef size_t step, size
    if left < sizeof(route):
        return -EBADMSG
    memcpy(&route, at, sizeof(route))
    if route.rtm_type != RTN_LOCAL or (route.rtm_family != AF_INET and route.rtm_family != AF_INET6):
        return 0
    # The kernel puts the local routes of a VRF into the VRF's own table, so other tables count as well. But the route
    # that a transparent proxy sets up for marked packets ("local default dev lo table 100") must not make every address
    # local.
    if route.rtm_table != RT_TABLE_LOCAL and route.rtm_protocol != RTPROT_KERNEL:
        return 0
    size = 4 if route.rtm_family == AF_INET else 16
    if route.rtm_dst_len > 8 * size:
        return -EBADMSG
    memset(&new, 0, sizeof(new))
    if size == 4:
        new.low = <uint64_t>MAPPED << 32        # "local default" has no RTA_DST
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
    truncate(&new, new.bits)
    cdef int rc = routes_add(self, &new)
    return rc if rc < 0 else 1


cdef int routes_find(const local_routes_t *self, const uint8_t *addr, int family) noexcept nogil:
    cdef address_t key
    cdef const address_t *slot
    cdef int i
    if family != AF_INET and family != AF_INET6:
        return -1
    map_address(&key, addr, 4 if family == AF_INET else 16)
    for i in range(self.length_count):
        # An IPv6 prefix that contains the IPv4-mapped addresses, such as ::/0, does not cover IPv4.
        if self.lengths[i] < 96 and family == AF_INET:
            break
        truncate(&key, self.lengths[i])
        slot = slot_of(self.slots, self.mask, self.secret, &key)
        if slot.is_used:
            return slot.ifindex
    # Loopback addresses are local even while "lo" is down, as in a new namespace.
    map_address(&key, addr, 4 if family == AF_INET else 16)
    if key.high == 0 and (key.low >> 24 == (<uint64_t>MAPPED << 8 | 127) or key.low == 1):
        return LOOPBACK_IFINDEX
    return -1


def parse_route(bytes message, address):
    """Whether an RTM_NEWROUTE message, without its header, makes the address local; -errno if it is malformed."""
    cdef local_routes_t table
    cdef bytes packed = ipaddress.ip_address(address).packed
    cdef int rc, found
    memset(&table, 0, sizeof(table))
    rc = routes_add_message(&table, <const uint8_t *>message, len(message))
    found = routes_find(&table, <const uint8_t *>packed, AF_INET if len(packed) == 4 else AF_INET6)
    routes_free(&table)
    return rc if rc < 0 else found >= 0
