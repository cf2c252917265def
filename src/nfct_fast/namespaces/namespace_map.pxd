"""A map of the network namespaces known at one moment, their addresses, and the links between them."""
from libc.stdint cimport uint8_t, uint32_t

from nfct_fast.namespaces.local_routes cimport local_routes_t
from nfct_fast.namespaces.links cimport link_kind_t
from nfct_fast.namespaces.namespace cimport namespace_t

# A set of addresses that several maps share. It never changes; references are counted.
ctypedef struct shared_routes_t:
    int refs
    local_routes_t routes

cdef enum:                  # values of interface_t.peer other than the index of a node
    PEER_NONE = -1          # the interface does not lead into another namespace
    PEER_UNKNOWN = -2       # it leads into a namespace that is not in the map

# One network interface.
ctypedef struct interface_t:
    uint32_t ifindex
    uint32_t master         # ifindex of the bridge or bond that the interface belongs to; 0: none
    uint32_t other          # ifindex of the other end, see link_t
    int peer                # index of the node that the interface leads into, or PEER_*
    link_kind_t kind

# One network namespace.
ctypedef struct map_node_t:
    namespace_t *namespace  # the namespace, a reference; NULL: none is monitored under this number any more
    shared_routes_t *addresses    # its local addresses, a reference; NULL: not known
    interface_t *interfaces
    int interface_count
    int connected_group     # the same number for all nodes that chains of links connect
    int owner               # number of the owner; 0: our own user namespace or the initial one

# Read-only once namespace_map_finish() has returned. The monitored namespaces come first: their index is their number.
ctypedef struct namespace_map_t:
    map_node_t *nodes
    int count
    int monitored_count
    int skipped             # number of namespaces left out: too many, too large, or they may not be entered
    local_routes_t reachable    # all addresses of nodes connected to a monitored one; empty if memory is exhausted

# Move *routes, which is empty afterwards, into a shared set. NULL if memory is exhausted.
cdef shared_routes_t *routes_share(local_routes_t *routes) noexcept nogil
cdef shared_routes_t *routes_take(shared_routes_t *shared) noexcept nogil     # add a reference; NULL stays NULL
cdef void routes_drop(shared_routes_t *shared) noexcept nogil                 # drop a reference

cdef namespace_map_t *namespace_map_make(int count, int monitored_count) noexcept nogil     # NULL: no memory
cdef void namespace_map_free(namespace_map_t *self) noexcept nogil
# Fill in `reachable`, once all nodes are filled in.
cdef void namespace_map_finish(namespace_map_t *self) noexcept nogil

# Whether node `index` has the address and a chain of links connects it to the monitored node.
cdef bint namespace_map_has(const namespace_map_t *self, int monitored, int index, const uint8_t *addr,
                            int family) noexcept nogil
# Return the index of the node at which a packet to the address arrives when it leaves the monitored namespace, or -1 if
# that is not certain. Queries the kernel for a route in each namespace on the path, eight at most.
cdef int namespace_map_follow(namespace_map_t *self, int monitored, const uint8_t *addr, int family) noexcept nogil
