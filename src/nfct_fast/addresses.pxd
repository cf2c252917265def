"""Which addresses are this host's own, in one network namespace."""
from libc.stdint cimport uint8_t, uint64_t

from nfct_fast.addrtable cimport address_table_t
from nfct_fast.netquery cimport netquery_t

ctypedef struct addresses_t:
    int monitor             # netlink socket that hears of changes
    netquery_t query        # and one to ask: a dump's replies would drown among the changes
    bint dirty              # the table is to be asked for again
    uint64_t overruns
    address_table_t table

cdef void addresses_init(addresses_t *self) noexcept nogil    # as after addresses_close
cdef int addresses_open(addresses_t *self) noexcept nogil
cdef void addresses_close(addresses_t *self) noexcept nogil

# Takes in all changes heard of, without waiting. 1: asked again, 0: nothing new, -errno: what was known stays known
# and the next call asks again.
cdef int addresses_refresh(addresses_t *self) noexcept nogil

# The index of the interface that has the address (loopback: 1), or -1 if it is not local. family: AF_INET (4 bytes
# at addr) or AF_INET6 (16).
cdef int addresses_find(const addresses_t *self, const uint8_t *addr, int family) noexcept nogil


cdef class Addresses:
    cdef addresses_t addresses
