"""Build a namespace map from the watched namespaces.

A link refers to the namespace of its other end by a number (nsid) that has a meaning only in its own namespace.
connect_namespaces() finds out which namespace each number stands for, and which namespaces chains of links connect;
build_map() writes both into a namespace_map_t, which never changes afterwards.

`namespaces` is {inode: WatchedNamespace}; `monitored` lists the monitored ones by number, with None for a free number.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc

from nfct_fast.namespaces.links cimport link_t
from nfct_fast.namespaces.namespace cimport namespace_take
from nfct_fast.namespaces.namespace_map cimport (
    PEER_NONE, PEER_UNKNOWN, interface_t, map_node_t, namespace_map_finish, namespace_map_free, namespace_map_make,
    namespace_map_t, routes_take,
)
from nfct_fast.namespaces.watched_namespace cimport WatchedNamespace


cdef int connect_namespaces(dict namespaces, list monitored) except -1:
    cdef WatchedNamespace space, other
    for space in namespaces.values():
        unknown = space.linked_nsids() - space.nsids.keys()
        # Try the monitored namespaces first, as most links lead there.
        for other in [*[one for one in monitored if one is not None], *namespaces.values()]:
            if not unknown:
                break
            if other is not space and other.inode not in space.nsids.values():
                number = space.nsid_of(other.namespace.ns)
                if number is not None:
                    space.nsids[number] = other.inode
                    unknown.discard(number)
    neighbours = {}
    for space in namespaces.values():
        space.connected_group = 0
        for number in space.linked_nsids():
            if number in space.nsids:
                neighbours.setdefault(space.inode, set()).add(space.nsids[number])
                neighbours.setdefault(space.nsids[number], set()).add(space.inode)
    group = 0
    for space in namespaces.values():
        if space.connected_group:
            continue
        group += 1
        todo = [space.inode]
        while todo:
            other = namespaces[todo.pop()]
            if not other.connected_group:
                other.connected_group = group
                todo += neighbours.get(other.inode, ())
    return 0


cdef int fill_node(map_node_t *node, WatchedNamespace space, dict indexes, dict owners) except -1:
    cdef const link_t *link
    cdef interface_t *interface
    cdef uint64_t i
    node.namespace = namespace_take(space.namespace)
    node.addresses = routes_take(space.routes)
    node.connected_group = space.connected_group
    node.owner = 0
    if space.uid is not None:
        node.owner = owners.setdefault((space.uid, space.userns if space.uid <= 0 else 0), len(owners) + 1)
    node.interfaces = <interface_t *>calloc(space.links.count + 1, sizeof(interface_t))
    if node.interfaces == NULL:
        raise MemoryError
    node.interface_count = space.links.count
    for i in range(space.links.count):
        link, interface = &space.links.at[i], &node.interfaces[i]
        interface.ifindex, interface.master = link.ifindex, link.master
        interface.other, interface.kind = link.other, link.kind
        interface.peer = PEER_NONE if link.nsid < 0 else indexes.get(space.nsids.get(link.nsid), PEER_UNKNOWN)
    return 0


cdef namespace_map_t *build_map(dict namespaces, list monitored, int skipped) except NULL:
    cdef namespace_map_t *result
    owners = {}
    order = [*monitored, *[space for space in namespaces.values() if not (<WatchedNamespace>space).monitored]]
    result = namespace_map_make(len(order), len(monitored))
    if result == NULL:
        raise MemoryError
    result.skipped = skipped
    try:
        indexes = {space.inode: index for index, space in enumerate(order) if space is not None}
        for index, space in enumerate(order):
            if space is not None:
                fill_node(&result.nodes[index], space, indexes, owners)
        namespace_map_finish(result)
    except BaseException:
        namespace_map_free(result)
        raise
    return result
