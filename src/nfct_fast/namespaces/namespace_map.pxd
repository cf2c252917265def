"""The network namespaces known at one moment, their addresses, and the links between them."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.namespaces.links cimport link_kind_t
from nfct_fast.namespaces.namespace cimport namespace_t

# A set of addresses that several maps share. It never changes.
ctypedef struct shared_routes_t:
    int refs
    local_routes_t routes

cdef enum:                  # interface_t.peer, where it is not the index of a node
    PEER_NONE = -1          # the interface does not lead into another namespace
    PEER_UNKNOWN = -2       # it leads into a namespace that is not in the map

# One network interface.
ctypedef struct interface_t:
    uint32_t ifindex
    uint32_t master         # ifindex of its bridge or bond; 0: none
    uint32_t other          # ifindex of the other end, see link_t
    int peer                # index of the node that it leads into, or PEER_*
    link_kind_t kind

# One network namespace.
ctypedef struct map_node_t:
    namespace_t *namespace  # a reference; NULL: no namespace is monitored under this number any more
    shared_routes_t *addresses    # a reference; NULL: not known
    interface_t *interfaces
    int interface_count
    int connected_group     # the same for all nodes that some chain of links connects
    int owner               # 0: our own user namespace or the initial one; else a number for each owner

# Read-only once namespace_map_finish() has returned. The monitored namespaces come first: their index is their number.
ctypedef struct namespace_map_t:
    map_node_t *nodes
    int count
    int monitored_count
    int skipped             # namespaces that are not in the map: too many, too large, or may not be entered
    local_routes_t reachable    # all addresses of nodes connected to a monitored one; empty without memory
    int *by_cookie          # hash of node indexes by namespace cookie, open addressing; -1: free
    uint32_t cookie_mask    # size of that hash - 1

# A shared copy of *routes, which is empty afterwards; NULL without memory.
cdef shared_routes_t *routes_share(local_routes_t *routes) noexcept nogil
cdef shared_routes_t *routes_take(shared_routes_t *shared) noexcept nogil     # one more reference; NULL stays NULL
cdef void routes_drop(shared_routes_t *shared) noexcept nogil                 # one less

cdef namespace_map_t *namespace_map_make(int count, int monitored_count) noexcept nogil     # NULL without memory
cdef void namespace_map_free(namespace_map_t *self) noexcept nogil
# Build the two hashes, once all nodes are filled in. 0 or -ENOMEM.
cdef int namespace_map_finish(namespace_map_t *self) noexcept nogil

# The index of the namespace with this cookie, or -1.
cdef int namespace_map_by_cookie(const namespace_map_t *self, uint64_t cookie) noexcept nogil
# Whether node `index` has the address and some chain of links connects it to the monitored node.
cdef bint namespace_map_has(const namespace_map_t *self, int monitored, int index, const uint8_t *addr,
                            int family) noexcept nogil
# Where a packet to the address arrives that leaves the monitored namespace: the node's index, or -1 if that is not
# certain. Asks the kernel for a route in each namespace on the path, eight at most.
cdef int namespace_map_follow(namespace_map_t *self, int monitored, const uint8_t *addr, int family) noexcept nogil
