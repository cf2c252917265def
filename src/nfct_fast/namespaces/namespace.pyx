"""The sockets in one network namespace of this host.

It is entered once, to make sockets there that answer for it from then on; and again where only a table in /proc/net
will do.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from posix.unistd cimport close

from linux_netlink cimport NETLINK_ROUTE, NETLINK_SOCK_DIAG
from procfs_calls cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch
from sys_socket cimport SO_NETNS_COOKIE, SOL_SOCKET, getsockopt, socklen_t

from nfct_fast.namespaces.local_routes cimport local_routes_t, table_find
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_close, netquery_take
from nfct_fast.sockets.proc_net cimport procnet_free, procnet_init, procnet_lookup, procnet_survey, procnet_t
from nfct_fast.sockets.socket_info cimport socket_info_t
from nfct_fast.sockets.sock_diag cimport diag_lookup, diag_lookup_listener

cdef enum:
    TABLE_AGE_NS = 20_000_000


cdef uint64_t cookie_of(int fd) noexcept nogil:
    # Of the namespace that the socket is in.
    cdef uint64_t cookie = 0
    cdef socklen_t size = sizeof(cookie)
    return cookie if getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0 else 0


cdef namespace_t *namespace_open(uint64_t inode, int ns, bint diag, Opener opener, int *error) noexcept nogil:
    cdef namespace_t *member = <namespace_t *>calloc(1, sizeof(namespace_t))
    cdef int rc = 0
    if member == NULL:
        close(ns)
        error[0] = ENOMEM
        return NULL
    member.refs = 1
    member.inode = inode
    member.ns = ns
    member.diag.fd = member.routes.fd = -1
    if diag:
        rc = netquery_take(&member.diag, opener.netlink(ns, NETLINK_SOCK_DIAG))
    if rc == 0:
        rc = netquery_take(&member.routes, opener.netlink(ns, NETLINK_ROUTE))
    if rc < 0:
        error[0] = -rc
        namespace_drop(member)
        return NULL
    member.cookie = cookie_of(member.routes.fd)
    return member


cdef namespace_t *namespace_take(namespace_t *member) noexcept nogil:
    if member != NULL:
        __atomic_add_fetch(&member.refs, 1, __ATOMIC_RELAXED)
    return member


cdef void namespace_drop(namespace_t *member) noexcept nogil:
    if member == NULL or __atomic_sub_fetch(&member.refs, 1, __ATOMIC_ACQ_REL) != 0:
        return
    netquery_close(&member.diag)
    netquery_close(&member.routes)
    close(member.ns)
    if member.tables != NULL:
        procnet_free(member.tables)
    free(member.tables)
    free(member)


cdef uint64_t namespace_foreign(const namespace_t *member) noexcept nogil:
    return member.diag.foreign + member.routes.foreign


cdef int namespace_lookup(namespace_t *member, const local_routes_t *addresses, const tuple_t *tuple, bint listener,
                       socket_info_t *out) noexcept nogil:
    cdef int rc, ifindex
    rc = diag_lookup_listener(&member.diag, tuple, 0, out) if listener else diag_lookup(&member.diag, tuple, 0, out)
    if rc == 0:
        # Sockets bound to a device, as all are that speak IPv6 link-local, are found only if it is named. Most
        # speak from an address of that device.
        ifindex = table_find(addresses, &tuple.src[0], tuple.family)
        if ifindex > 0:
            rc = (diag_lookup_listener(&member.diag, tuple, ifindex, out) if listener
                  else diag_lookup(&member.diag, tuple, ifindex, out))
    return rc


ctypedef struct way_t:
    void *opener
    int ns


cdef int open_through(void *context, const char *name) noexcept nogil:
    cdef way_t *way = <way_t *>context
    return (<Opener>way.opener).table(way.ns, name)


cdef procnet_t *tables_of(namespace_t *member, way_t *way) noexcept nogil:
    """NULL: no memory."""
    if member.tables == NULL:
        member.tables = <procnet_t *>malloc(sizeof(procnet_t))
        if member.tables == NULL:
            return NULL
        procnet_init(member.tables, open_through, NULL, TABLE_AGE_NS, 0)
    member.tables.context = way
    return member.tables


cdef int namespace_tables_lookup(namespace_t *member, Opener opener, const tuple_t *tuple, int64_t when,
                              socket_info_t *out) noexcept nogil:
    cdef way_t way = way_t(<void *>opener, member.ns)
    return procnet_lookup(member.tables, tuple, when, out) if tables_of(member, &way) != NULL else -ENOMEM


cdef int namespace_tables_survey(namespace_t *member, Opener opener, const tuple_t *tuple, int64_t when, diag_match_t *out,
                              int room) noexcept nogil:
    cdef way_t way = way_t(<void *>opener, member.ns)
    return procnet_survey(member.tables, tuple, when, out, room) if tables_of(member, &way) != NULL else -ENOMEM
