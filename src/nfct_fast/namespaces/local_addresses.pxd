"""Which addresses are this host's own, in one network namespace."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.kernel.netlink_query cimport netquery_t

ctypedef struct local_addresses_t:
    int monitor             # netlink socket that hears of changes
    netquery_t query        # and one to ask: a dump's replies would drown among the changes
    bint dirty              # the table is to be asked for again
    uint32_t limit           # local routes, of which more are not taken in; 0: no bound
    uint64_t overruns
    uint64_t foreign        # datagrams that the kernel did not send
    local_routes_t routes

cdef void local_addresses_init(local_addresses_t *self) noexcept nogil    # as after local_addresses_close
cdef int local_addresses_open(local_addresses_t *self, uint32_t limit) noexcept nogil
# The same with two NETLINK_ROUTE sockets that are its own then, or the -errno of there being none.
cdef int local_addresses_adopt(local_addresses_t *self, int monitor, int query, uint32_t limit) noexcept nogil
cdef void local_addresses_close(local_addresses_t *self) noexcept nogil

# Sets self.dirty if changes were heard of; of a flood of them only the first are looked at. 0 or -errno.
cdef int local_addresses_receive(local_addresses_t *self) noexcept nogil

# Asks again if it is dirty. 1: asked, 0: nothing new, -errno: what was known stays known and the next call asks again;
# -E2BIG: there are more than self.limit, and self.query is closed.
cdef int local_addresses_read(local_addresses_t *self) noexcept nogil

# Both.
cdef int local_addresses_refresh(local_addresses_t *self) noexcept nogil

# The index of the interface that has the address (loopback: 1), or -1 if it is not local. family: AF_INET (4 bytes
# at addr) or AF_INET6 (16).
cdef int local_addresses_find(const local_addresses_t *self, const uint8_t *addr, int family) noexcept nogil


cdef class LocalAddresses:
    cdef local_addresses_t addresses
