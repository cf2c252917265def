"""The interfaces of one network namespace: which of them lead into others, and by which a packet to an address leaves."""
from libc.stdint cimport int32_t, uint8_t, uint32_t

from nfct_fast.kernel.netlink_query cimport netquery_t

cdef enum link_kind_t:
    LINK_OTHER              # what is behind it is not known: hardware, a tap, a tunnel
    LINK_PAIR               # the other end is an interface: veth, netkit
    LINK_ABOVE              # macvlan, ipvlan: it shares another interface
    LINK_GROUP              # a bridge or bond: its ports are all that is behind it
    LINK_NOWHERE            # lo, dummy: nothing is behind it

ctypedef struct link_t:
    uint32_t ifindex
    uint32_t master         # the bridge or bond whose port it is; 0: none
    uint32_t other          # the other end, or what is shared
    int32_t nsid            # of the namespace that `other` is in, as this one numbers them; -1: it is in this one
    link_kind_t kind

# Zeroed is empty.
ctypedef struct links_t:
    link_t *at
    uint32_t count
    uint32_t room

# All of these ask in the namespace that `query` (to NETLINK_ROUTE) is of, and return 0 or -errno.
# all there are into the empty `out`; -E2BIG (and query is closed) if they are more than `most`
cdef int links_read(netquery_t *query, links_t *out, uint32_t most) noexcept nogil
cdef void links_free(links_t *self) noexcept nogil
# its number for the namespace that is open as `fd`; -1: it has none
cdef int links_nsid(netquery_t *query, int fd, int32_t *nsid) noexcept nogil

ctypedef struct route_t:
    uint32_t ifindex        # by which a packet leaves
    bint has_gateway        # of the same family
    uint8_t gateway[16]

# -EHOSTUNREACH if there is none, or not one interface alone
cdef int route_read(netquery_t *query, const uint8_t *addr, int family, route_t *out) noexcept nogil
