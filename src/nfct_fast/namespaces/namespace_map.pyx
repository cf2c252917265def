"""A map of the network namespaces known at one moment, their addresses, and the links between them.

The discovery thread makes it and hands it over to the thread that looks up addresses in it.
"""
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from stdatomic cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch

from nfct_fast.namespaces.local_routes cimport local_routes_t, routes_find, routes_free, routes_merge
from nfct_fast.namespaces.links cimport LINK_GROUP, LINK_NOWHERE, LINK_PAIR, route_read, route_t
from nfct_fast.namespaces.namespace cimport namespace_drop

cdef enum:
    HOPS_MAX = 8


cdef shared_routes_t *routes_share(local_routes_t *routes) noexcept nogil:
    cdef shared_routes_t *shared = <shared_routes_t *>malloc(sizeof(shared_routes_t))
    if shared != NULL:
        shared.refs = 1
        shared.routes = routes[0]
        memset(routes, 0, sizeof(routes[0]))
    return shared


cdef shared_routes_t *routes_take(shared_routes_t *shared) noexcept nogil:
    if shared != NULL:
        __atomic_add_fetch(&shared.refs, 1, __ATOMIC_RELAXED)
    return shared


cdef void routes_drop(shared_routes_t *shared) noexcept nogil:
    if shared != NULL and __atomic_sub_fetch(&shared.refs, 1, __ATOMIC_ACQ_REL) == 0:
        routes_free(&shared.routes)
        free(shared)


cdef namespace_map_t *namespace_map_make(int count, int monitored_count) noexcept nogil:
    cdef namespace_map_t *self = <namespace_map_t *>calloc(1, sizeof(namespace_map_t))
    if self == NULL:
        return NULL
    self.nodes = <map_node_t *>calloc(max(1, count), sizeof(map_node_t))
    if self.nodes == NULL:
        free(self)
        return NULL
    self.count = count
    self.monitored_count = monitored_count
    return self


cdef void namespace_map_free(namespace_map_t *self) noexcept nogil:
    cdef int i
    if self == NULL:
        return
    for i in range(self.count):
        namespace_drop(self.nodes[i].namespace)
        routes_drop(self.nodes[i].addresses)
        free(self.nodes[i].interfaces)
    routes_free(&self.reachable)
    free(self.nodes)
    free(self)


cdef bint is_linked_to_monitored(const namespace_map_t *self, int index) noexcept nogil:
    """Whether a chain of links connects the node to a monitored one other than itself."""
    cdef int i
    for i in range(self.monitored_count):
        if i == index or self.nodes[i].namespace == NULL:
            continue
        if self.nodes[i].connected_group == self.nodes[index].connected_group:
            return True
    return False


cdef void namespace_map_finish(namespace_map_t *self) noexcept nogil:
    cdef int i, rc = 0
    for i in range(self.count):
        # Monitored namespaces are included, since they are reachable from other monitored ones.
        if rc == 0 and self.nodes[i].addresses != NULL and is_linked_to_monitored(self, i):
            rc = routes_merge(&self.reachable, &self.nodes[i].addresses.routes)
    if rc < 0:
        routes_free(&self.reachable)


cdef bint namespace_map_has(const namespace_map_t *self, int monitored, int index, const uint8_t *addr,
                            int family) noexcept nogil:
    cdef const map_node_t *node = &self.nodes[index]
    return (node.connected_group == self.nodes[monitored].connected_group and node.addresses != NULL
            and routes_find(&node.addresses.routes, addr, family) >= 0)


# The nodes that one interface leads to, by index. An index is -1 if there is none, -2 if there are several.
cdef struct neighbours_t:
    int has_address         # the neighbour that has the address
    int has_gateway         # the neighbour that has the route's gateway
    int any                 # the neighbour, whatever addresses it has
    bint has_unknown        # there may be neighbours that are other hosts, or namespaces that are not in the map


cdef void add_node(int *one, int index) noexcept nogil:
    one[0] = index if one[0] == -1 or one[0] == index else -2


cdef void find_neighbours(const namespace_map_t *self, int at, const route_t *route, const uint8_t *addr, int family,
                      neighbours_t *out) noexcept nogil:
    cdef const map_node_t *node = &self.nodes[at]
    cdef const interface_t *interface
    cdef int i
    out.has_address = out.has_gateway = out.any = -1
    out.has_unknown = False
    for i in range(node.interface_count):
        interface = &node.interfaces[i]
        if interface.ifindex != route.ifindex and interface.master != route.ifindex:
            continue
        if interface.kind == LINK_PAIR and interface.peer >= 0:
            add_node(&out.any, interface.peer)
            if namespace_map_has(self, at, interface.peer, addr, family):
                add_node(&out.has_address, interface.peer)
            if route.has_gateway and namespace_map_has(self, at, interface.peer, &route.gateway[0], family):
                add_node(&out.has_gateway, interface.peer)
        elif not (interface.kind == LINK_NOWHERE
                  or interface.kind == LINK_GROUP and interface.ifindex == route.ifindex):
            out.has_unknown = True


cdef int namespace_map_follow(namespace_map_t *self, int monitored, const uint8_t *addr, int family) noexcept nogil:
    cdef neighbours_t neighbours
    cdef route_t route
    cdef int at = monitored
    cdef int _
    for _ in range(HOPS_MAX):
        if route_read(&self.nodes[at].namespace.routes, addr, family, &route) < 0:
            return -1
        find_neighbours(self, at, &route, addr, family, &neighbours)
        # Other hosts on the same link, such as behind a bridge with a physical port, may have the address.
        if neighbours.has_unknown or neighbours.has_address == -2:
            return -1
        if neighbours.has_address >= 0:
            return neighbours.has_address if neighbours.has_address != monitored else -1
        at = neighbours.has_gateway if neighbours.has_gateway >= 0 else neighbours.any if not route.has_gateway else -1
        if at < 0 or at == monitored:
            return -1
    return -1
