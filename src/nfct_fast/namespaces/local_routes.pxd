"""A set of addresses and prefixes."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

ctypedef struct address_t:
    uint64_t high           # in host order; IPv4 is kept IPv4-mapped, what is beyond the prefix is 0
    uint64_t low
    uint32_t ifindex
    uint8_t bits            # of the mapped form
    bint taken              # a free slot of the hash is not

# Zeroed is empty.
ctypedef struct local_routes_t:
    address_t *slots        # hash of prefixes, whole addresses among them, open addressing
    uint32_t mask           # hash size - 1
    uint32_t count
    uint64_t secret[2]      # of the hash: whose addresses these are may not know which of them collide
    uint8_t lengths[129]    # those there are, the longest first
    uint8_t length_count

cdef void routes_free(local_routes_t *self) noexcept nogil

# One RTM_NEWROUTE without its netlink header. 1 added, 0 it makes nothing local, -ENOMEM, -EBADMSG.
cdef int routes_add_message(local_routes_t *self, const uint8_t *data, size_t size) noexcept nogil

# All that is in the other, too; 0 or -ENOMEM.
cdef int routes_merge(local_routes_t *self, const local_routes_t *other) noexcept nogil

# As local_addresses_find: loopback is in every table. One probe for each length there is.
cdef int routes_find(const local_routes_t *self, const uint8_t *addr, int family) noexcept nogil
