"""The network namespaces known at one moment, their addresses, and the ways between them."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.namespaces.links cimport link_kind_t
from nfct_fast.namespaces.namespace cimport namespace_t

# A table that several atlases have. It never changes.
ctypedef struct shared_routes_t:
    int refs
    local_routes_t table

cdef enum:
    PEER_NONE = -1         # the interface leads nowhere else
    PEER_UNKNOWN = -2       # into a namespace that is not in the atlas

# One interface.
ctypedef struct interface_t:
    uint32_t ifindex
    uint32_t master
    uint32_t other          # as in link_t
    int to                  # the place it leads into, or STEP_*
    link_kind_t kind

ctypedef struct map_node_t:
    namespace_t *namespace        # NULL: nobody's number, as no namespace is listened in under it any more
    shared_routes_t *addresses
    interface_t *interfaces
    int interface_count
    int connected_group               # places between which there is some way have the same
    int owner               # 0: our own user namespace, or the initial one; else whose it is has a number of his own

# Those that are listened in come first.
ctypedef struct namespace_map_t:
    map_node_t *nodes
    int count
    int monitored_count
    int skipped             # namespaces that are left out
    local_routes_t reachable  # all addresses of those that a packet can come from to a home; without memory for it, empty
    int *by_cookie          # hash of places, open addressing; -1: free
    uint32_t cookie_mask

cdef shared_routes_t *routes_share(local_routes_t *table) noexcept nogil      # takes what is in it; NULL without memory
cdef shared_routes_t *routes_take(shared_routes_t *shared) noexcept nogil
cdef void routes_drop(shared_routes_t *shared) noexcept nogil

cdef namespace_map_t *namespace_map_make(int count, int monitored_count) noexcept nogil     # NULL without memory
cdef void namespace_map_free(namespace_map_t *self) noexcept nogil
# Once all places are filled in. 0 or -ENOMEM.
cdef int namespace_map_finish(namespace_map_t *self) noexcept nogil

# Where it is, or -1.
cdef int namespace_map_by_cookie(const namespace_map_t *self, uint64_t cookie) noexcept nogil
# Whether a place has the address, and whether some way leads from it to that home.
cdef bint namespace_map_has(const namespace_map_t *self, int monitored, int index, const uint8_t *addr, int family) noexcept nogil
# Where a packet to the address that leaves home arrives: the place, or -1 if that is not for certain. Asks for a route
# in each namespace on the way, eight at most.
cdef int namespace_map_follow(namespace_map_t *self, int monitored, const uint8_t *addr, int family) noexcept nogil
