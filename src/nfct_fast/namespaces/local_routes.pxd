"""A set of local addresses and prefixes: the kernel's routes of type "local"."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

ctypedef struct address_t:
    uint64_t high           # upper half in host order; IPv4 is stored IPv4-mapped, and bits beyond the prefix are 0
    uint64_t low            # lower half
    uint32_t ifindex
    uint8_t bits            # prefix length, of the mapped form for IPv4
    bint is_used            # False: this slot of the hash is free

# A set of prefixes. Empty if zeroed.
ctypedef struct local_routes_t:
    address_t *slots        # hash of prefixes and whole addresses, open addressing
    uint32_t mask           # size of the hash - 1
    uint32_t count
    uint64_t secret[2]      # seeds the hash, so that whoever sets addresses cannot make them collide
    uint8_t lengths[129]    # the prefix lengths in the set, the longest first
    uint8_t length_count

cdef void routes_free(local_routes_t *self) noexcept nogil

# Add the route of an RTM_NEWROUTE message, given without its netlink header. Return 1 if it was added, 0 if it is not a
# local route, -ENOMEM or -EBADMSG.
cdef int routes_add_message(local_routes_t *self, const uint8_t *data, size_t size) noexcept nogil

# Add all that is in `other`. 0 or -ENOMEM.
cdef int routes_merge(local_routes_t *self, const local_routes_t *other) noexcept nogil

# See local_addresses_find. Loopback is in every set. Takes one probe for each prefix length.
cdef int routes_find(const local_routes_t *self, const uint8_t *addr, int family) noexcept nogil
