"""The network namespaces known at one moment, their addresses, and the ways between them.

Made by one thread, and handed to another that looks things up in it.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from procfs_calls cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch

from nfct_fast.namespaces.local_routes cimport local_routes_t, table_find, table_free, table_join
from nfct_fast.namespaces.links cimport LINK_GROUP, LINK_NOWHERE, LINK_PAIR, route_read, route_t
from nfct_fast.namespaces.namespace cimport namespace_drop

cdef enum:
    HOPS = 8


cdef shared_table_t *table_share(local_routes_t *table) noexcept nogil:
    cdef shared_table_t *shared = <shared_table_t *>malloc(sizeof(shared_table_t))
    if shared != NULL:
        shared.refs = 1
        shared.table = table[0]
        memset(table, 0, sizeof(table[0]))
    return shared


cdef shared_table_t *table_take(shared_table_t *shared) noexcept nogil:
    if shared != NULL:
        __atomic_add_fetch(&shared.refs, 1, __ATOMIC_RELAXED)
    return shared


cdef void table_drop(shared_table_t *shared) noexcept nogil:
    if shared != NULL and __atomic_sub_fetch(&shared.refs, 1, __ATOMIC_ACQ_REL) == 0:
        table_free(&shared.table)
        free(shared)


cdef namespace_map_t *namespace_map_make(int count, int homes) noexcept nogil:
    cdef namespace_map_t *self = <namespace_map_t *>calloc(1, sizeof(namespace_map_t))
    if self == NULL:
        return NULL
    self.places = <place_t *>calloc(max(1, count), sizeof(place_t))
    if self.places == NULL:
        free(self)
        return NULL
    self.count = count
    self.homes = homes
    return self


cdef void namespace_map_free(namespace_map_t *self) noexcept nogil:
    cdef int i
    if self == NULL:
        return
    for i in range(self.count):
        namespace_drop(self.places[i].member)
        table_drop(self.places[i].addresses)
        free(self.places[i].steps)
    table_free(&self.joined)
    free(self.by_cookie)
    free(self.places)
    free(self)


cdef bint is_near(const namespace_map_t *self, int index) noexcept nogil:
    """Whether some way leads from it to a home."""
    cdef int i
    for i in range(self.homes):
        if i != index and self.places[i].member != NULL and self.places[i].realm == self.places[index].realm:
            return True
    return False


cdef uint32_t cookie_slot(uint64_t cookie) noexcept nogil:
    return <uint32_t>((cookie * <uint64_t>0x9e3779b97f4a7c15) >> 32)


cdef int namespace_map_close(namespace_map_t *self) noexcept nogil:
    cdef uint32_t slot
    cdef int i, rc = 0
    for i in range(self.count):
        # A home is asked for the flows heard in others.
        if rc == 0 and self.places[i].addresses != NULL and is_near(self, i):
            rc = table_join(&self.joined, &self.places[i].addresses.table)
    if rc < 0:
        table_free(&self.joined)
    self.cookie_mask = 15
    while self.cookie_mask < <uint32_t>(2 * self.count):
        self.cookie_mask = 2 * self.cookie_mask + 1
    self.by_cookie = <int *>malloc((<size_t>self.cookie_mask + 1) * sizeof(int))
    if self.by_cookie == NULL:
        return -ENOMEM
    memset(self.by_cookie, 0xff, (<size_t>self.cookie_mask + 1) * sizeof(int))
    for i in range(self.count):
        if self.places[i].member == NULL or self.places[i].member.cookie == 0:
            continue
        slot = cookie_slot(self.places[i].member.cookie) & self.cookie_mask
        while self.by_cookie[slot] >= 0:
            slot = (slot + 1) & self.cookie_mask
        self.by_cookie[slot] = i
    return 0


cdef int namespace_map_by_cookie(const namespace_map_t *self, uint64_t cookie) noexcept nogil:
    cdef uint32_t slot = cookie_slot(cookie) & self.cookie_mask
    if cookie == 0:
        return -1
    while self.by_cookie[slot] >= 0:
        if self.places[self.by_cookie[slot]].member.cookie == cookie:
            return self.by_cookie[slot]
        slot = (slot + 1) & self.cookie_mask
    return -1


cdef bint namespace_map_has(const namespace_map_t *self, int home, int index, const uint8_t *addr, int family) noexcept nogil:
    cdef const place_t *place = &self.places[index]
    return (place.realm == self.places[home].realm and place.addresses != NULL
            and table_find(&place.addresses.table, addr, family) >= 0)


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
    cdef const place_t *place = &self.places[at]
    cdef const step_t *step
    cdef int i
    out.holder = out.gate = out.only = -1
    out.more = False
    for i in range(place.step_count):
        step = &place.steps[i]
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


cdef int namespace_map_follow(namespace_map_t *self, int home, const uint8_t *addr, int family) noexcept nogil:
    cdef behind_t behind
    cdef route_t route
    cdef int at = home
    cdef int hop
    for hop in range(HOPS):
        if route_read(&self.places[at].member.routes, addr, family, &route) < 0:
            return -1
        look_behind(self, at, &route, addr, family, &behind)
        # Where others stand beside them, as on a bridge with a wire to the world, the address may be theirs.
        if behind.more or behind.holder == -2:
            return -1
        if behind.holder >= 0:
            return behind.holder if behind.holder != home else -1
        at = behind.gate if behind.gate >= 0 else behind.only if not route.has_gateway else -1
        if at < 0 or at == home:
            return -1
    return -1
