"""Which network namespace of this host has an address, and the sockets in it.

A flow that is forwarded here may come from a container: its address is another namespace's own.
"""
cimport cython
from libc.errno cimport ENXIO
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy
from posix.unistd cimport close

from sys_socket cimport AF_INET6

from nfct_fast.addresses cimport addresses_find, addresses_refresh, addresses_t
from nfct_fast.addrtable cimport table_find, table_free, table_join
from nfct_fast.diagmsg cimport diag_match_t
from nfct_fast.direction cimport is_group
from nfct_fast.flow cimport tuple_t
from nfct_fast.member cimport (
    member_close, member_lookup, member_moved, member_open, member_t, member_tables_lookup, member_tables_survey,
)
from nfct_fast.procfs cimport procfs_monotonic_ns
from nfct_fast.sock cimport sock_t
from nfct_fast.sockdiag cimport diag_survey

import os
import resource
import time

from nfct_fast import netns

cdef enum:
    # A stranger's flood of unknown addresses may cost one recv() of 0.2 us per member in this time.
    DRAIN_NS = 100_000
    STRANGER_NS = 10_000_000_000
    STRANGERS = 256


cdef bint is_private(const tuple_t *tuple) noexcept nogil:
    # As containers have: RFC 1918, RFC 6598, link-local, and for IPv6 unique local.
    cdef const uint8_t *a = &tuple.src[0]
    if tuple.family == AF_INET6:
        return a[0] & 0xfe == 0xfc or a[0] == 0xfe and a[1] & 0xc0 == 0x80
    return (a[0] == 10 or a[0] == 172 and a[1] & 0xf0 == 16 or a[0] == 192 and a[1] == 168
            or a[0] == 100 and a[1] & 0xc0 == 64 or a[0] == 169 and a[1] == 254)


cdef bint is_due(Directory self) noexcept nogil:
    return self.wanted and <double>procfs_monotonic_ns() * 1e-9 >= self.due


cdef uint32_t tuple_slot(const tuple_t *tuple) noexcept nogil:
    cdef uint64_t halves[2]
    memcpy(halves, tuple.src, 16)
    return <uint32_t>(((halves[0] ^ halves[1]) * <uint64_t>0x9e3779b97f4a7c15) >> 40) & (STRANGERS - 1)


@cython.final
@cython.auto_pickle(False)
cdef class Directory:
    """The network namespaces of this host, each with its addresses and a sock_diag socket.

    home: a Netns, None for the calling thread's own; limit: namespaces besides homes at most, three file descriptors
    each, and never more than 3/8 of RLIMIT_NOFILE; ttl: seconds between two searches for namespaces; proc: where /proc
    is mounted. Several namespaces may be home, that is, listened in: see add_home().

    Call refresh() about once a second: a namespace whose last process is gone is kept alive by our sockets, with its
    interfaces, until then. Entering other namespaces needs CAP_SYS_ADMIN, seeing those of other users' processes
    CAP_SYS_PTRACE; without, they are left out and counted in skipped.
    """

    def __cinit__(self):
        self.members = NULL
        self.count = 0
        self.root = -1

    def __init__(self, home=None, *, int limit=128, double ttl=1.0, proc="/proc", bint diag=True):
        self.close()
        self.root = os.open(proc, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.limit = limit if soft == resource.RLIM_INFINITY else min(limit, soft // 8)
        self.diag = diag
        self.ttl = ttl
        self.proc = proc
        self.names, self.witnesses = [], []
        self.due = float("-inf")
        self.add_home(home)

    def add_home(self, home=None) -> int:
        """Take a Netns, None for the calling thread's namespace, among those that are listened in; its number, from 0.

        Flows heard there are looked up with that number. A namespace that is home already keeps its number. Enters the
        namespace for a moment. OSError.
        """
        cdef member_t moved
        cdef int i
        inode = netns.current(self.proc) if home is None else home.inode
        for i in range(self.count):
            if self.members[i].inode == inode:
                break
        else:
            i = self.count
            if home is None:
                self.add(inode, "home" if i == 0 else f"net:{inode}", f"{self.proc}/thread-self/ns/net")
            else:
                with home.entered():
                    self.add(inode, home.name, home.path)
        if i < self.homes:
            return i
        moved = self.members[self.homes]
        self.members[self.homes] = self.members[i]
        self.members[i] = moved
        for beside in (self.names, self.witnesses):
            beside[self.homes], beside[i] = beside[i], beside[self.homes]
        self.homes += 1
        return self.homes - 1

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            member_close(&self.members[i])
        free(self.members)
        table_free(&self.joined)
        if self.root >= 0:
            close(self.root)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Closes all sockets and lets go of all namespaces; a second call does nothing."""
        cdef int i
        for i in range(self.count):
            member_close(&self.members[i])
        self.count = self.homes = 0
        self.stale = True
        self.names, self.witnesses = [], []
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    cdef int add(self, inode, str name, str witness) except -1:
        # Called inside the namespace.
        cdef member_t *grown = <member_t *>realloc(self.members, (self.count + 1) * sizeof(member_t))
        cdef bytes path = os.fsencode(witness)
        cdef int rc
        if grown == NULL:
            raise MemoryError
        self.members = grown
        rc = member_open(&grown[self.count], inode, netns.cookie(), path, self.diag)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), f"network namespace {name}")
        self.names.append(name)
        self.witnesses.append(witness)
        self.count += 1
        self.stale = True
        return 0

    def refresh(self) -> bool:
        """Looks for new namespaces if an unknown address was asked for, and lets go of those that are gone.

        Costs one stat() per known namespace; a search through /proc only when there is cause, and at most every ttl
        seconds (less often where it takes long). True if it searched. Enters other namespaces for a moment:
        RuntimeError if it cannot come back.
        """
        now = time.monotonic()
        if self.count == 0:
            raise ValueError("the directory is closed")
        if now < self.due:
            return False
        cdef int i
        if self.stranded:
            raise RuntimeError("the thread could not come back from another network namespace")
        for i in range(self.homes, self.count):
            if not self.seen(i):
                self.wanted = True
        if not self.wanted:
            return False
        self.wanted = False
        found = netns.paths(self.proc)
        self.retire(found)
        self.enlist(found)
        # On a router unknown addresses never end: spend 2 % on them at most (18 us a process for each search).
        end = time.monotonic()
        self.due = end + max(self.ttl, min(50 * (end - now), 50 * self.ttl))
        return True

    cdef bint seen(self, int index) except -1:
        try:
            return os.stat(self.witnesses[index]).st_ino == self.members[index].inode
        except OSError:
            return False

    cdef int retire(self, dict found) except -1:
        cdef int i, kept = self.homes
        cdef bytes path
        for i in range(self.homes, self.count):
            if self.members[i].inode not in found:
                member_close(&self.members[i])
                continue
            self.members[kept] = self.members[i]
            self.names[kept], self.witnesses[kept] = found[self.members[i].inode]
            path = os.fsencode(self.witnesses[kept])
            if member_moved(&self.members[kept], path) < 0:
                raise MemoryError
            kept += 1
        self.stale = self.stale or kept < self.count
        self.count = kept
        del self.names[kept:], self.witnesses[kept:]
        return 0

    cdef int enlist(self, dict found) except -1:
        known = {self.members[i].inode for i in range(self.count)}
        self.skipped = 0
        for inode, (name, path) in found.items():
            if inode in known:
                continue
            if self.count - self.homes >= self.limit:
                self.skipped += 1
                continue
            try:
                with netns.Netns(path, name) as space:
                    if space.inode == inode:
                        with space.entered():
                            self.add(inode, name, path)
            except OSError:
                self.skipped += 1
        return 0

    cdef bint _is_foreign(self, const tuple_t *tuple) noexcept nogil:
        # With a hundred containers, to ask each cost a quarter of all that a flow costs.
        cdef int i, rc = 0
        if self.stale:
            table_free(&self.joined)
            for i in range(self.count):
                rc = rc or table_join(&self.joined, &self.members[i].addresses.table)
            if rc < 0:
                table_free(&self.joined)
            self.stale = False
        return self.joined.hosts != NULL and table_find(&self.joined, &tuple.src[0], tuple.family) < 0

    cdef int place(self, int home, const tuple_t *tuple, int after) noexcept nogil:
        cdef int i
        # The flow was seen at home: an address home has is home's, whoever else has it too. Groups have members there.
        if addresses_find(&self.members[home].addresses, &tuple.src[0], tuple.family) >= 0 or is_group(
                &tuple.src[0], tuple.family):
            return home if after < 0 else -1
        if after < 0 and self._is_foreign(tuple):
            return -1
        for i in range(after + 1, self.count):
            if i != home and addresses_find(&self.members[i].addresses, &tuple.src[0], tuple.family) >= 0:
                return i
        return -1

    cdef bint look_again(self, const tuple_t *tuple, bint search) noexcept nogil:
        cdef uint64_t now = <uint64_t>procfs_monotonic_ns()
        cdef stranger_t *stranger = &self.strangers[tuple_slot(tuple)]
        cdef int i
        if not search and is_private(tuple) and not (
                stranger.until > now and memcmp(stranger.addr, tuple.src, 16) == 0):
            memcpy(stranger.addr, tuple.src, 16)
            stranger.until = now + <uint64_t>STRANGER_NS
            search = True
        if search:
            self.wanted = True
        if search and self.eager and is_due(self) and self.search_now():
            return True
        if now - self.drained < <uint64_t>DRAIN_NS * self.count:
            return False
        self.drained = now
        for i in range(self.count):
            self.stale = addresses_refresh(&self.members[i].addresses) > 0 or self.stale
        return True

    cdef bint search_now(self) noexcept with gil:
        # A container's first flow is worth 18 us a process, once a second at most.
        try:
            return self.refresh()
        except Exception:      # refresh() of the next round says why
            self.wanted = True
            return False

    cdef int lookup_at(self, int index, const tuple_t *tuple, bint listener, sock_t *out) noexcept nogil:
        return member_lookup(&self.members[index], tuple, listener, out)

    cdef int survey_at(self, int index, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil:
        return diag_survey(&self.members[index].diag, tuple, out, room)

    cdef int tables_lookup(self, int index, const tuple_t *tuple, int64_t when, sock_t *out) noexcept nogil:
        return member_tables_lookup(&self.members[index], self.root, tuple, when, out, &self.stranded)

    cdef int tables_survey(self, int index, const tuple_t *tuple, int64_t when, diag_match_t *out,
                           int room) noexcept nogil:
        return member_tables_survey(&self.members[index], self.root, tuple, when, out, room, &self.stranded)

    cdef int refresh_home(self) noexcept nogil:
        cdef int i, one, rc = 0 if self.homes else -ENXIO
        for i in range(self.homes):
            one = addresses_refresh(&self.members[i].addresses)
            self.stale = self.stale or one > 0
            rc = min(rc, one)
        return rc

    cdef const addresses_t *home(self, int index) noexcept nogil:
        return &self.members[index].addresses if 0 <= index < self.homes else NULL

    cdef uint64_t cookie(self, int index) noexcept nogil:
        return self.members[index].cookie if 0 <= index < self.count else 0

    def namespaces(self) -> dict:
        """The namespaces known, as {inode: name}; home comes first."""
        return {self.members[i].inode: self.names[i] for i in range(self.count)}
