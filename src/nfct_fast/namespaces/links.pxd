"""The interfaces of one network namespace: which ones lead into other namespaces, and by which one a packet leaves."""
from libc.stdint cimport int32_t, uint8_t, uint32_t

from nfct_fast.kernel.netlink_query cimport netquery_t

cdef enum link_kind_t:
    LINK_OTHER              # leads to unknown hosts: hardware, a tap, a tunnel
    LINK_PAIR               # leads to another interface, its other end: veth, netkit
    LINK_ABOVE              # uses another interface, which it shares: macvlan, ipvlan
    LINK_GROUP              # leads only to its own ports: a bridge, a bond
    LINK_NOWHERE            # leads nowhere: lo, dummy

ctypedef struct link_t:
    uint32_t ifindex
    uint32_t master         # ifindex of the bridge or bond whose port it is; 0: none
    uint32_t other          # ifindex of the other end, or of the interface that it shares
    int32_t nsid            # this namespace's number for the one that `other` is in; -1: it is in this one
    link_kind_t kind

# All interfaces of a namespace. Empty if zeroed.
ctypedef struct links_t:
    link_t *at
    uint32_t count
    uint32_t room

# The functions below query the namespace in which `query`, a NETLINK_ROUTE socket, was opened. They return 0 or -errno.

# Read all links into `out`, which must be empty. -E2BIG if there are more than `most`; `query` is closed then.
cdef int links_read(netquery_t *query, links_t *out, uint32_t most) noexcept nogil
cdef void links_free(links_t *self) noexcept nogil
# Get the number (nsid) that it uses for the namespace open as `fd`; -1: it has none.
cdef int links_nsid(netquery_t *query, int fd, int32_t *nsid) noexcept nogil

ctypedef struct route_t:
    uint32_t ifindex        # index of the interface by which a packet leaves
    bint has_gateway        # there is a gateway of the same address family
    uint8_t gateway[16]

# Get the route to an address. -EHOSTUNREACH if there is none, or if it has several next hops.
cdef int route_read(netquery_t *query, const uint8_t *addr, int family, route_t *out) noexcept nogil
