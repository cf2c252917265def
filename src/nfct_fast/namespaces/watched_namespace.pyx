"""One network namespace that is watched: its addresses, its links, and its owner.

The netlink sockets that this opens stay in the namespace, whichever one the thread is in.
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
from nfct_fast.namespaces.namespace cimport namespace_drop, namespace_spoofed, namespace_open
from nfct_fast.kernel.clock cimport monotonic_ns

import os

from nfct_fast.kernel import netns

# Limits of what is read of a namespace. They matter for users' namespaces, which can be filled without limit.
cdef enum:
    USERS_ROUTES = 1024
    USERS_LINKS = 1024
    OUR_ROUTES = 1 << 18
    OUR_LINKS = 1 << 17
    IDLE_NS = 30_000_000_000    # how long a namespace counts as having been idle when it is found


cdef extern from "<sys/syscall.h>" nogil:
    enum: SYS_fcntl

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)     # glibc's name for fcntl is GLIBC_2.28 here; wheels keep to 2.17


@cython.final
@cython.auto_pickle(False)
cdef class WatchedNamespace:
    """A network namespace whose addresses and links are kept current by netlink sockets in it.

    Args:
        space: The namespace, an open Netns.
        diag: Whether to open a sock_diag socket as well.
        opener: The Opener of these sockets.

    Raises:
        RuntimeError: The calling thread entered the namespace and cannot return.
        OSError: The sockets cannot be opened.
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
        cdef int rc, monitor, query
        cdef uint32_t limit = OUR_ROUTES if self.uid is None else USERS_ROUTES
        self.closed_spoofed += self.addresses.spoofed + self.addresses.query.spoofed
        with nogil:
            local_addresses_close(&self.addresses)
            monitor = self.opener.netlink(self.namespace.ns, NETLINK_ROUTE)
            query = self.opener.netlink(self.namespace.ns, NETLINK_ROUTE)
            rc = local_addresses_adopt(&self.addresses, monitor, query, limit)
        self._check()
        if rc < 0 and rc != -E2BIG:
            raise OSError(-rc, os.strerror(-rc), f"network namespace {self.name}")
        self.too_large = rc == -E2BIG
        self._take_routes()
        return 0

    cdef int _take_routes(self) except -1:
        """Put the addresses that local_addresses_read() found into a shared set, and read the links."""
        cdef links_t links
        cdef uint32_t limit = OUR_LINKS if self.uid is None else USERS_LINKS
        cdef int rc = -E2BIG
        memset(&links, 0, sizeof(links))
        routes_drop(self.routes)
        self.routes = NULL
        if not self.too_large:
            self.routes = routes_share(&self.addresses.routes)
            with nogil:
                rc = links_read(&self.addresses.query, &links, limit)
        # If the links cannot be read, no path leads to the namespace.
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
        """Read what has changed; return whether anything has. What cannot be read stays as it was."""
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

    def set_path(self, name, path):
        """Set the name and the path under which the namespace was found."""
        self.name, self.last_path = name, path

    def is_there(self) -> bool:
        """Whether the namespace still is at the path where it was last found."""
        try:
            return os.stat(self.last_path).st_ino == self.inode
        except OSError:
            return False

    def fileno(self) -> int:
        """Return a descriptor that is readable when something may have changed; -1 while the namespace is too large."""
        return self.addresses.monitor

    def nsid_of(self, int fd):
        """Return the number (nsid) that it uses for the namespace open as `fd`; None if it has none."""
        cdef int32_t number = -1
        if links_nsid(&self.addresses.query, fd, &number) < 0 or number < 0:
            return None
        return number

    def linked_nsids(self) -> set:
        """Return the numbers (nsid) of the namespaces that its links lead into."""
        cdef uint32_t i
        return {self.links.at[i].nsid for i in range(self.links.count) if self.links.at[i].nsid >= 0}

    @property
    def spoofed(self) -> int:
        """Datagrams ignored because a process sent them, not the kernel."""
        return (self.closed_spoofed + self.addresses.spoofed + self.addresses.query.spoofed
                + namespace_spoofed(self.namespace))
