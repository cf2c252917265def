"""The local addresses of one network namespace."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.kernel.netlink_query cimport netquery_t

ctypedef struct local_addresses_t:
    int monitor             # rtnetlink socket for notifications
    netquery_t query        # rtnetlink socket for dumps, kept apart so that notifications do not delay replies
    bint dirty              # the routes have to be read again
    uint32_t limit          # most routes that are read; 0: no limit
    uint64_t overruns       # how often notifications were lost
    uint64_t spoofed        # datagrams ignored because a process sent them, not the kernel
    local_routes_t routes   # the local routes as last read

cdef void local_addresses_init(local_addresses_t *self) noexcept nogil    # as after local_addresses_close()
cdef int local_addresses_open(local_addresses_t *self, uint32_t limit) noexcept nogil
# The same with two existing NETLINK_ROUTE sockets, which belong to `self` from now on; or with the -errno why one could
# not be made, which is returned.
cdef int local_addresses_adopt(local_addresses_t *self, int monitor, int query, uint32_t limit) noexcept nogil
cdef void local_addresses_close(local_addresses_t *self) noexcept nogil

# Receive notifications, without waiting, and set self.dirty if there were any. 0 or -errno.
cdef int local_addresses_receive(local_addresses_t *self) noexcept nogil

# Read the routes again if they are dirty. Return 1 if they were read, 0 if nothing has changed, -E2BIG if there are
# more than self.limit (self.query is closed then), or another -errno: the old routes stay, and the next call tries
# again.
cdef int local_addresses_read(local_addresses_t *self) noexcept nogil

# local_addresses_receive(), then local_addresses_read().
cdef int local_addresses_refresh(local_addresses_t *self) noexcept nogil

# Return the index of the interface that has the address (loopback: 1), or -1 if it is not local. family: AF_INET (4
# bytes at addr) or AF_INET6 (16 bytes).
cdef int local_addresses_find(const local_addresses_t *self, const uint8_t *addr, int family) noexcept nogil


cdef class LocalAddresses:
    cdef local_addresses_t addresses
