"""One network namespace of this host, and the sockets in it.

It is entered once to open netlink sockets, which stay in it, and again each time a table of /proc/net is needed.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from posix.unistd cimport close

from linux_netlink cimport NETLINK_ROUTE, NETLINK_SOCK_DIAG
from stdatomic cimport __ATOMIC_ACQ_REL, __ATOMIC_RELAXED, __atomic_add_fetch, __atomic_sub_fetch
from sys_socket cimport SO_NETNS_COOKIE, SOL_SOCKET, getsockopt, socklen_t

from nfct_fast.namespaces.local_routes cimport local_routes_t, routes_find
from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_close, netquery_adopt
from nfct_fast.sockets.proc_net cimport procnet_free, procnet_init, procnet_lookup, procnet_survey, procnet_t
from nfct_fast.sockets.socket_info cimport socket_info_t
from nfct_fast.sockets.sock_diag cimport diag_lookup, diag_lookup_listener

cdef enum:
    TABLE_AGE_NS = 20_000_000


cdef uint64_t cookie_of(int fd) noexcept nogil:
    # Return the cookie of the socket's network namespace, 0 if it is not known.
    cdef uint64_t cookie = 0
    cdef socklen_t size = sizeof(cookie)
    return cookie if getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0 else 0


cdef namespace_t *namespace_open(uint64_t inode, int ns, bint diag, Opener opener, int *error) noexcept nogil:
    cdef namespace_t *self = <namespace_t *>calloc(1, sizeof(namespace_t))
    cdef int rc = 0
    if self == NULL:
        close(ns)
        error[0] = ENOMEM
        return NULL
    self.refs = 1
    self.inode = inode
    self.ns = ns
    self.diag.fd = self.routes.fd = -1
    if diag:
        rc = netquery_adopt(&self.diag, opener.netlink(ns, NETLINK_SOCK_DIAG))
    if rc == 0:
        rc = netquery_adopt(&self.routes, opener.netlink(ns, NETLINK_ROUTE))
    if rc < 0:
        error[0] = -rc
        namespace_drop(self)
        return NULL
    self.cookie = cookie_of(self.routes.fd)
    return self


cdef namespace_t *namespace_take(namespace_t *self) noexcept nogil:
    if self != NULL:
        __atomic_add_fetch(&self.refs, 1, __ATOMIC_RELAXED)
    return self


cdef void namespace_drop(namespace_t *self) noexcept nogil:
    if self == NULL or __atomic_sub_fetch(&self.refs, 1, __ATOMIC_ACQ_REL) != 0:
        return
    netquery_close(&self.diag)
    netquery_close(&self.routes)
    close(self.ns)
    if self.tables != NULL:
        procnet_free(self.tables)
    free(self.tables)
    free(self)


cdef uint64_t namespace_spoofed(const namespace_t *self) noexcept nogil:
    return self.diag.spoofed + self.routes.spoofed


cdef int namespace_lookup(namespace_t *self, const local_routes_t *addresses, const tuple_t *tuple, bint listener,
                          socket_info_t *out) noexcept nogil:
    cdef int rc, ifindex
    rc = diag_lookup_listener(&self.diag, tuple, 0, out) if listener else diag_lookup(&self.diag, tuple, 0, out)
    if rc == 0:
        # sock_diag finds a socket that is bound to a device, as all sockets with an IPv6 link-local address are, only
        # if the request names the device. Most of these use an address of that device, so try the one with the address.
        ifindex = routes_find(addresses, &tuple.src[0], tuple.family)
        if ifindex > 0:
            rc = (diag_lookup_listener(&self.diag, tuple, ifindex, out) if listener
                  else diag_lookup(&self.diag, tuple, ifindex, out))
    return rc


ctypedef struct table_context_t:
    void *opener            # an Opener; borrowed
    int ns


cdef int open_through(void *context, const char *name) noexcept nogil:
    cdef table_context_t *table_context = <table_context_t *>context
    return (<Opener>table_context.opener).table(table_context.ns, name)


cdef procnet_t *tables_of(namespace_t *self, table_context_t *context) noexcept nogil:
    """Return the namespace's /proc/net, which opens tables through `context` until the next call; NULL: no memory."""
    if self.tables == NULL:
        self.tables = <procnet_t *>malloc(sizeof(procnet_t))
        if self.tables == NULL:
            return NULL
        procnet_init(self.tables, open_through, NULL, TABLE_AGE_NS, 0)
    self.tables.context = context
    return self.tables


cdef int namespace_tables_lookup(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when,
                                 socket_info_t *out) noexcept nogil:
    cdef table_context_t context = table_context_t(<void *>opener, self.ns)
    return procnet_lookup(self.tables, tuple, when, out) if tables_of(self, &context) != NULL else -ENOMEM


cdef int namespace_tables_survey(namespace_t *self, Opener opener, const tuple_t *tuple, int64_t when,
                                 diag_match_t *out, int room) noexcept nogil:
    cdef table_context_t context = table_context_t(<void *>opener, self.ns)
    return procnet_survey(self.tables, tuple, when, out, room) if tables_of(self, &context) != NULL else -ENOMEM
