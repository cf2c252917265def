"""A set of addresses and prefixes."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

ctypedef struct address_t:
    uint64_t high           # in host order; IPv4 is kept IPv4-mapped
    uint64_t low
    uint32_t ifindex
    uint8_t bits            # of the mapped form; 0 in a free slot of the hash

# Zeroed is empty.
ctypedef struct address_table_t:
    address_t *hosts        # hash of whole addresses, open addressing
    address_t *prefixes     # the few shorter ones, e.g. "ip route add local 10.9.0.0/16 dev lo"
    uint32_t mask           # hash size - 1
    uint32_t host_count
    uint32_t prefix_count

cdef void table_free(address_table_t *self) noexcept nogil

# One RTM_NEWROUTE without its netlink header. 1 added, 0 it makes nothing local, -ENOMEM, -EBADMSG.
cdef int table_add_route(address_table_t *self, const uint8_t *data, size_t size) noexcept nogil

# All that is in the other, too; 0 or -ENOMEM.
cdef int table_join(address_table_t *self, const address_table_t *other) noexcept nogil

# As addresses_find: loopback is in every table.
cdef int table_find(const address_table_t *self, const uint8_t *addr, int family) noexcept nogil
