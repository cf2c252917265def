"""The interfaces of one network namespace: which of them lead into others, and which one a packet leaves by."""
from libc.stdint cimport int32_t, uint8_t, uint32_t

from nfct_fast.kernel.netlink_query cimport netquery_t

cdef enum link_kind_t:
    LINK_OTHER              # anything may be behind it: hardware, a tap, a tunnel
    LINK_PAIR               # the other end is an interface, too: veth, netkit
    LINK_ABOVE              # it shares another interface: macvlan, ipvlan
    LINK_GROUP              # only its ports are behind it: a bridge, a bond
    LINK_NOWHERE            # nothing is behind it: lo, dummy

ctypedef struct link_t:
    uint32_t ifindex
    uint32_t master         # ifindex of the bridge or bond whose port it is; 0: none
    uint32_t other          # ifindex of the other end, or of the interface that it shares
    int32_t nsid            # this namespace's number for the one that `other` is in; -1: it is in this one
    link_kind_t kind

# A zeroed one is empty.
ctypedef struct links_t:
    link_t *at
    uint32_t count
    uint32_t room

# These ask the kernel about the namespace that `query`, a NETLINK_ROUTE socket, was opened in, and return 0 or -errno.
# Read all links into the empty `out`. -E2BIG, and query is closed, if there are more than `most`.
cdef int links_read(netquery_t *query, links_t *out, uint32_t most) noexcept nogil
cdef void links_free(links_t *self) noexcept nogil
# The number (nsid) that it has for the namespace open as `fd`; -1: it has none.
cdef int links_nsid(netquery_t *query, int fd, int32_t *nsid) noexcept nogil

ctypedef struct route_t:
    uint32_t ifindex        # of the interface that a packet leaves by
    bint has_gateway        # there is a gateway of the same address family
    uint8_t gateway[16]

# The route to an address. -EHOSTUNREACH if there is none, or it has several next hops.
cdef int route_read(netquery_t *query, const uint8_t *addr, int family, route_t *out) noexcept nogil
