"""The network namespaces known at one moment, their addresses, and the ways between them.

Made by one thread, and handed to another that looks things up in it.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from procfs_calls cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch

from nfct_fast.namespaces.local_routes cimport local_routes_t, routes_find, routes_free, routes_merge
from nfct_fast.namespaces.links cimport LINK_GROUP, LINK_NOWHERE, LINK_PAIR, route_read, route_t
from nfct_fast.namespaces.namespace cimport namespace_drop

cdef enum:
    HOPS = 8


cdef shared_routes_t *routes_share(local_routes_t *table) noexcept nogil:
    cdef shared_routes_t *shared = <shared_routes_t *>malloc(sizeof(shared_routes_t))
    if shared != NULL:
        shared.refs = 1
        shared.table = table[0]
        memset(table, 0, sizeof(table[0]))
    return shared


cdef shared_routes_t *routes_take(shared_routes_t *shared) noexcept nogil:
    if shared != NULL:
        __atomic_add_fetch(&shared.refs, 1, __ATOMIC_RELAXED)
    return shared


cdef void routes_drop(shared_routes_t *shared) noexcept nogil:
    if shared != NULL and __atomic_sub_fetch(&shared.refs, 1, __ATOMIC_ACQ_REL) == 0:
        routes_free(&shared.table)
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
    free(self.by_cookie)
    free(self.nodes)
    free(self)


cdef bint is_near(const namespace_map_t *self, int index) noexcept nogil:
    """Whether some way leads from it to a monitored."""
    cdef int i
    for i in range(self.monitored_count):
        if i != index and self.nodes[i].namespace != NULL and self.nodes[i].connected_group == self.nodes[index].connected_group:
            return True
    return False


cdef uint32_t cookie_slot(uint64_t cookie) noexcept nogil:
    return <uint32_t>((cookie * <uint64_t>0x9e3779b97f4a7c15) >> 32)


cdef int namespace_map_finish(namespace_map_t *self) noexcept nogil:
    cdef uint32_t slot
    cdef int i, rc = 0
    for i in range(self.count):
        # A monitored is asked for the flows heard in others.
        if rc == 0 and self.nodes[i].addresses != NULL and is_near(self, i):
            rc = routes_merge(&self.reachable, &self.nodes[i].addresses.table)
    if rc < 0:
        routes_free(&self.reachable)
    self.cookie_mask = 15
    while self.cookie_mask < <uint32_t>(2 * self.count):
        self.cookie_mask = 2 * self.cookie_mask + 1
    self.by_cookie = <int *>malloc((<size_t>self.cookie_mask + 1) * sizeof(int))
    if self.by_cookie == NULL:
        return -ENOMEM
    memset(self.by_cookie, 0xff, (<size_t>self.cookie_mask + 1) * sizeof(int))
    for i in range(self.count):
        if self.nodes[i].namespace == NULL or self.nodes[i].namespace.cookie == 0:
            continue
        slot = cookie_slot(self.nodes[i].namespace.cookie) & self.cookie_mask
        while self.by_cookie[slot] >= 0:
            slot = (slot + 1) & self.cookie_mask
        self.by_cookie[slot] = i
    return 0


cdef int namespace_map_by_cookie(const namespace_map_t *self, uint64_t cookie) noexcept nogil:
    cdef uint32_t slot = cookie_slot(cookie) & self.cookie_mask
    if cookie == 0:
        return -1
    while self.by_cookie[slot] >= 0:
        if self.nodes[self.by_cookie[slot]].namespace.cookie == cookie:
            return self.by_cookie[slot]
        slot = (slot + 1) & self.cookie_mask
    return -1


cdef bint namespace_map_has(const namespace_map_t *self, int monitored, int index, const uint8_t *addr, int family) noexcept nogil:
    cdef const map_node_t *place = &self.nodes[index]
    return (place.connected_group == self.nodes[monitored].connected_group and place.addresses != NULL
            and routes_find(&place.addresses.table, addr, family) >= 0)


# What stands behind one interface.
cdef struct behind_t:
    int holder              # the one place that has the address; -1 none, -2 several
    int gate                # the one that has the gateway's
    int only                # the one there is
    bint more               # and others that are not in the atlas


cdef void add_place(int *one, int index) noexcept nogil:
    one[0] = index if one[0] == -1 or one[0] == index else -2


cdef void look_behind(const namespace_map_t *self, int at, const route_t *route, const uint8_t *addr, int family,
                      behind_t *out) noexcept nogil:
    cdef const map_node_t *place = &self.nodes[at]
    cdef const interface_t *step
    cdef int i
    out.holder = out.gate = out.only = -1
    out.more = False
    for i in range(place.interface_count):
        step = &place.interfaces[i]
        if step.ifindex != route.ifindex and step.master != route.ifindex:
            continue
        if step.kind == LINK_PAIR and step.to >= 0:
            add_place(&out.only, step.to)
            if namespace_map_has(self, at, step.to, addr, family):
                add_place(&out.holder, step.to)
            if route.has_gateway and namespace_map_has(self, at, step.to, &route.gateway[0], family):
                add_place(&out.gate, step.to)
        elif not (step.kind == LINK_NOWHERE or step.kind == LINK_GROUP and step.ifindex == route.ifindex):
            out.more = True


cdef int namespace_map_follow(namespace_map_t *self, int monitored, const uint8_t *addr, int family) noexcept nogil:
    cdef behind_t behind
    cdef route_t route
    cdef int at = monitored
    cdef int hop
    for hop in range(HOPS):
        if route_read(&self.nodes[at].namespace.routes, addr, family, &route) < 0:
            return -1
        look_behind(self, at, &route, addr, family, &behind)
        # Where others stand beside them, as on a bridge with a wire to the world, the address may be theirs.
        if behind.more or behind.holder == -2:
            return -1
        if behind.holder >= 0:
            return behind.holder if behind.holder != monitored else -1
        at = behind.gate if behind.gate >= 0 else behind.only if not route.has_gateway else -1
        if at < 0 or at == monitored:
            return -1
    return -1
