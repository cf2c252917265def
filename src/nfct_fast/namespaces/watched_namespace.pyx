"""One network namespace as it is watched: its addresses, its links, and whose it is.

Sockets are made in it, which answer for it from then on.
"""
cimport cython
from libc.errno cimport E2BIG, EMFILE, EPERM
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.fcntl cimport F_DUPFD_CLOEXEC

from linux_netlink cimport NETLINK_ROUTE

from nfct_fast.namespaces.local_addresses cimport (
    local_addresses_close, local_addresses_receive, local_addresses_init, local_addresses_read,
    local_addresses_adopt,
)
from nfct_fast.namespaces.namespace_map cimport routes_drop, routes_share
from nfct_fast.namespaces.links cimport links_free, links_nsid, links_read, links_t
from nfct_fast.namespaces.namespace cimport namespace_drop, namespace_foreign, namespace_open
from nfct_fast.kernel.clock cimport monotonic_ns

import os

from nfct_fast.kernel import netns

# What is taken in of a namespace, which a user may fill as he likes; of one of ours, only so that it ends.
cdef enum:
    FOREIGN_ROUTES = 1024
    FOREIGN_LINKS = 1024
    OUR_ROUTES = 1 << 18
    OUR_LINKS = 1 << 17
    # A namespace is taken for as idle as this when it is found.
    IDLE_NS = 30_000_000_000


cdef extern from "<sys/syscall.h>" nogil:
    enum: SYS_fcntl

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)     # glibc's name for fcntl is GLIBC_2.28 here; wheels keep to 2.17


@cython.final
@cython.auto_pickle(False)
cdef class WatchedNamespace:
    """An open Netns. diag: open a sock_diag socket, too; door: makes the sockets there.

    OSError; RuntimeError if the calling thread entered it and cannot come back.
    """

    def __cinit__(self, space not None, bint diag, Opener opener not None):
        cdef uint64_t inode = space.inode
        cdef int error = 0, ns
        local_addresses_init(&self.addresses)
        self.inode, self.name, self.last_path, self.opener = space.inode, space.name, space.path, opener
        self.uid, self.userns = netns.owner(space.fileno())
        self.nsids = {}
        ns = <int>syscall(SYS_fcntl, <int>space.fileno(), F_DUPFD_CLOEXEC, 0)
        if ns < 0:
            raise OSError(EMFILE, os.strerror(EMFILE), self.name)
        with nogil:
            self.namespace = namespace_open(inode, ns, diag, opener, &error)
        self._check()
        if self.namespace == NULL:
            why = "entering needs CAP_SYS_ADMIN" if error == EPERM else os.strerror(error)
            raise OSError(error, f"network namespace {self.name}: {why}")
        self.namespace.used_at = max(0, monotonic_ns() - <long>IDLE_NS)
        self._open()

    def __dealloc__(self):
        local_addresses_close(&self.addresses)
        routes_drop(self.routes)
        links_free(&self.links)
        namespace_drop(self.namespace)

    cdef int _check(self) except -1:
        if self.opener.stranded:
            raise RuntimeError(f"cannot leave network namespace {self.name}")
        return 0

    cdef int _open(self) except -1:
        cdef int rc, monitor
        cdef uint32_t most = OUR_ROUTES if self.uid is None else FOREIGN_ROUTES
        self.closed_foreign += self.addresses.foreign + self.addresses.query.foreign
        with nogil:
            local_addresses_close(&self.addresses)
            monitor = self.opener.netlink(self.namespace.ns, NETLINK_ROUTE)
            rc = local_addresses_adopt(&self.addresses, monitor, self.opener.netlink(self.namespace.ns, NETLINK_ROUTE), most)
        self._check()
        if rc < 0 and rc != -E2BIG:
            raise OSError(-rc, os.strerror(-rc), f"network namespace {self.name}")
        self.too_large = rc == -E2BIG
        self._take_routes()
        return 0

    cdef int _take_routes(self) except -1:
        """What local_addresses_read has found, and the links with it."""
        cdef links_t links
        cdef uint32_t most = OUR_LINKS if self.uid is None else FOREIGN_LINKS
        cdef int rc = -E2BIG
        memset(&links, 0, sizeof(links))
        routes_drop(self.routes)
        self.routes = NULL
        if not self.too_large:
            self.routes = routes_share(&self.addresses.routes)
            with nogil:
                rc = links_read(&self.addresses.query, &links, most)
        # Without its links no way leads to it.
        if rc < 0:
            links_free(&links)
            self.too_large = self.too_large or rc == -E2BIG
        if self.too_large:
            local_addresses_close(&self.addresses)
            routes_drop(self.routes)
            self.routes = NULL
        links_free(&self.links)
        self.links = links
        return 0

    cdef int read(self) except -1:
        """Takes in what was heard of; whether there is anything new. What cannot be read stays as it was known."""
        cdef int rc
        self.changed = False
        if self.too_large:
            try:
                self._open()
            except OSError:
                return False
            return not self.too_large
        with nogil:
            rc = local_addresses_receive(&self.addresses)
            if rc == 0:
                rc = local_addresses_read(&self.addresses)
        self.too_large = rc == -E2BIG
        if rc == 1 or self.too_large:
            self._take_routes()
        return rc == 1 or self.too_large

    def set_path(self, name, last_path):
        """It is seen under another path now."""
        self.name, self.last_path = name, last_path

    def is_there(self) -> bool:
        """Whether it is still where it was last seen."""
        try:
            return os.stat(self.last_path).st_ino == self.inode
        except OSError:
            return False

    def fileno(self) -> int:
        """Readable when something may have changed; -1 while it has more than is taken in."""
        return self.addresses.monitor

    def nsid_of(self, int fd):
        """Its own number for a namespace open as fd, None if it has none."""
        cdef int32_t number = -1
        if links_nsid(&self.addresses.query, fd, &number) < 0 or number < 0:
            return None
        return number

    def linked_nsids(self) -> set:
        """The numbers of the namespaces its links lead into."""
        cdef uint32_t i
        return {self.links.at[i].nsid for i in range(self.links.count) if self.links.at[i].nsid >= 0}

    @property
    def foreign(self) -> int:
        """Datagrams that the kernel did not send."""
        return self.closed_foreign + self.addresses.foreign + self.addresses.query.foreign + namespace_foreign(self.namespace)
