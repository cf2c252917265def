"""Which addresses are this host's own, in one network namespace."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfct_fast.namespaces.local_routes cimport address_table_t
from nfct_fast.kernel.netlink_query cimport netquery_t

ctypedef struct addresses_t:
    int monitor             # netlink socket that hears of changes
    netquery_t query        # and one to ask: a dump's replies would drown among the changes
    bint dirty              # the table is to be asked for again
    uint32_t most           # local routes, of which more are not taken in; 0: no bound
    uint64_t overruns
    uint64_t foreign        # datagrams that the kernel did not send
    address_table_t table

cdef void addresses_init(addresses_t *self) noexcept nogil    # as after addresses_close
cdef int addresses_open(addresses_t *self, uint32_t most) noexcept nogil
# The same with two NETLINK_ROUTE sockets that are its own then, or the -errno of there being none.
cdef int addresses_take(addresses_t *self, int monitor, int query, uint32_t most) noexcept nogil
cdef void addresses_close(addresses_t *self) noexcept nogil

# Sets self.dirty if changes were heard of; of a flood of them only the first are looked at. 0 or -errno.
cdef int addresses_hear(addresses_t *self) noexcept nogil

# Asks again if it is dirty. 1: asked, 0: nothing new, -errno: what was known stays known and the next call asks again;
# -E2BIG: there are more than self.most, and self.query is closed.
cdef int addresses_read(addresses_t *self) noexcept nogil

# Both.
cdef int addresses_refresh(addresses_t *self) noexcept nogil

# The index of the interface that has the address (loopback: 1), or -1 if it is not local. family: AF_INET (4 bytes
# at addr) or AF_INET6 (16).
cdef int addresses_find(const addresses_t *self, const uint8_t *addr, int family) noexcept nogil


cdef class Addresses:
    cdef addresses_t addresses
