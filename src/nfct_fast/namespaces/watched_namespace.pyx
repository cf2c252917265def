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
    local_addresses_close, local_addresses_hear, local_addresses_init, local_addresses_read, local_addresses_take,
)
from nfct_fast.namespaces.namespace_map cimport table_drop, table_share
from nfct_fast.namespaces.links cimport links_free, links_nsid, links_read, links_t
from nfct_fast.namespaces.namespace cimport namespace_drop, namespace_foreign, namespace_open
from nfct_fast.kernel.procfs cimport procfs_monotonic_ns

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
        self.inode, self.name, self.witness, self.opener = space.inode, space.name, space.path, opener
        self.uid, self.userns = netns.owner(space.fileno())
        self.numbers = {}
        ns = <int>syscall(SYS_fcntl, <int>space.fileno(), F_DUPFD_CLOEXEC, 0)
        if ns < 0:
            raise OSError(EMFILE, os.strerror(EMFILE), self.name)
        with nogil:
            self.member = namespace_open(inode, ns, diag, opener, &error)
        self._check()
        if self.member == NULL:
            why = "entering needs CAP_SYS_ADMIN" if error == EPERM else os.strerror(error)
            raise OSError(error, f"network namespace {self.name}: {why}")
        self.member.used = max(0, procfs_monotonic_ns() - <long>IDLE_NS)
        self._open()

    def __dealloc__(self):
        local_addresses_close(&self.addresses)
        table_drop(self.table)
        links_free(&self.links)
        namespace_drop(self.member)

    cdef int _check(self) except -1:
        if self.opener.stranded:
            raise RuntimeError(f"cannot leave network namespace {self.name}")
        return 0

    cdef int _open(self) except -1:
        cdef int rc, monitor
        cdef uint32_t most = OUR_ROUTES if self.uid is None else FOREIGN_ROUTES
        self.before += self.addresses.foreign + self.addresses.query.foreign
        with nogil:
            local_addresses_close(&self.addresses)
            monitor = self.opener.netlink(self.member.ns, NETLINK_ROUTE)
            rc = local_addresses_take(&self.addresses, monitor, self.opener.netlink(self.member.ns, NETLINK_ROUTE), most)
        self._check()
        if rc < 0 and rc != -E2BIG:
            raise OSError(-rc, os.strerror(-rc), f"network namespace {self.name}")
        self.refused = rc == -E2BIG
        self._take()
        return 0

    cdef int _take(self) except -1:
        """What local_addresses_read has found, and the links with it."""
        cdef links_t links
        cdef uint32_t most = OUR_LINKS if self.uid is None else FOREIGN_LINKS
        cdef int rc = -E2BIG
        memset(&links, 0, sizeof(links))
        table_drop(self.table)
        self.table = NULL
        if not self.refused:
            self.table = table_share(&self.addresses.table)
            with nogil:
                rc = links_read(&self.addresses.query, &links, most)
        # Without its links no way leads to it.
        if rc < 0:
            links_free(&links)
            self.refused = self.refused or rc == -E2BIG
        if self.refused:
            local_addresses_close(&self.addresses)
            table_drop(self.table)
            self.table = NULL
        links_free(&self.links)
        self.links = links
        return 0

    cdef int read(self) except -1:
        """Takes in what was heard of; whether there is anything new. What cannot be read stays as it was known."""
        cdef int rc
        self.pending = False
        if self.refused:
            try:
                self._open()
            except OSError:
                return False
            return not self.refused
        with nogil:
            rc = local_addresses_hear(&self.addresses)
            if rc == 0:
                rc = local_addresses_read(&self.addresses)
        self.refused = rc == -E2BIG
        if rc == 1 or self.refused:
            self._take()
        return rc == 1 or self.refused

    def fingerprint_set_as(self, name, witness):
        """It is seen under another path now."""
        self.name, self.witness = name, witness

    def is_there(self) -> bool:
        """Whether it is still where it was last seen."""
        try:
            return os.stat(self.witness).st_ino == self.inode
        except OSError:
            return False

    def fileno(self) -> int:
        """Readable when something may have changed; -1 while it has more than is taken in."""
        return self.addresses.monitor

    def number_of(self, int fd):
        """Its own number for a namespace open as fd, None if it has none."""
        cdef int32_t number = -1
        if links_nsid(&self.addresses.query, fd, &number) < 0 or number < 0:
            return None
        return number

    def led_to(self) -> set:
        """The numbers of the namespaces its links lead into."""
        cdef uint32_t i
        return {self.links.at[i].nsid for i in range(self.links.count) if self.links.at[i].nsid >= 0}

    @property
    def foreign(self) -> int:
        """Datagrams that the kernel did not send."""
        return self.before + self.addresses.foreign + self.addresses.query.foreign + namespace_foreign(self.member)
