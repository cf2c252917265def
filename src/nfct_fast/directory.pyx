"""Which network namespace of this host has an address, and the sockets in it.

A flow that is forwarded here may come from a container: its address is another namespace's own. Each namespace is
entered once, to make sockets there that answer for it from then on.
"""
cimport cython
from libc.errno cimport ENXIO
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from nfct_fast.addresses cimport addresses_close, addresses_find, addresses_open, addresses_refresh, addresses_t
from nfct_fast.flow cimport tuple_t
from nfct_fast.sock cimport sock_t
from nfct_fast.sockdiag cimport (
    diag_check, diag_close, diag_lookup, diag_lookup_listener, diag_open, set_tuple, sock_dict,
)

import os
import time

from nfct_fast import netns

cdef enum:
    # A stranger's flood of unknown addresses may cost one recv() of 0.2 us per member in this time.
    DRAIN_NS = 100_000


cdef int member_lookup(member_t *member, const tuple_t *tuple, bint listener, bint check,
                       sock_t *out) noexcept nogil:
    cdef int rc, error, ifindex
    rc = diag_lookup_listener(&member.diag, tuple, 0, out) if listener else diag_lookup(&member.diag, tuple, 0, out)
    if rc == 0:
        # Sockets bound to a device, as all are that speak IPv6 link-local, are found only if it is named. Most
        # speak from an address of that device.
        ifindex = addresses_find(&member.addresses, &tuple.src[0], tuple.family)
        if ifindex > 0:
            rc = (diag_lookup_listener(&member.diag, tuple, ifindex, out) if listener
                  else diag_lookup(&member.diag, tuple, ifindex, out))
    if rc == 1 and check:
        error = diag_check(&member.diag, tuple, out)
        if error < 0:
            return error
    return rc


cdef void member_close(member_t *member) noexcept nogil:
    diag_close(&member.diag)
    addresses_close(&member.addresses)


cdef uint64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


@cython.final
@cython.auto_pickle(False)
cdef class Directory:
    """The network namespaces of this host, each with its addresses and a sock_diag socket.

    home: a Netns, None for the calling thread's own; limit: namespaces besides home at most, three file descriptors
    each; ttl: seconds between two searches for namespaces; proc: where /proc is mounted.

    check (settable): look for other sockets that share the port of an unconnected UDP socket or a listener, and mark
    the answer ambiguous; 0.06 to 2 ms each by the number of UDP sockets, while a look-up takes 3 us. True at first.

    Call refresh() about once a second: a namespace whose last process is gone is kept alive by our sockets, with its
    interfaces, until then. Entering other namespaces needs CAP_SYS_ADMIN, seeing those of other users' processes
    CAP_SYS_PTRACE; without, they are left out and counted in skipped.
    """

    def __cinit__(self):
        self.members = NULL
        self.count = 0

    def __init__(self, home=None, *, int limit=128, double ttl=1.0, proc="/proc"):
        self.close()
        self.limit = limit
        self.check = True
        self.ttl = ttl
        self.proc = proc
        self.names, self.witnesses = [], []
        self.due = float("-inf")
        if home is None:
            self.add(netns.current(proc), "home", f"{proc}/thread-self/ns/net")
        else:
            with home.entered():
                self.add(home.inode, home.name, f"{proc}/self/fd/{home.fileno()}")

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            member_close(&self.members[i])
        free(self.members)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Closes all sockets and lets go of all namespaces; a second call does nothing."""
        cdef int i
        for i in range(self.count):
            member_close(&self.members[i])
        self.count = 0
        self.names, self.witnesses = [], []

    cdef int add(self, inode, str name, str witness) except -1:
        # Called inside the namespace.
        cdef member_t *grown = <member_t *>realloc(self.members, (self.count + 1) * sizeof(member_t))
        cdef member_t *new
        cdef int rc
        if grown == NULL:
            raise MemoryError
        self.members = grown
        new = &grown[self.count]
        memset(new, 0, sizeof(new[0]))
        new.inode = inode
        rc = diag_open(&new.diag)
        if rc == 0:
            rc = addresses_open(&new.addresses)
            if rc < 0:
                diag_close(&new.diag)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), f"network namespace {name}")
        self.names.append(name)
        self.witnesses.append(witness)
        self.count += 1
        return 0

    def refresh(self) -> bool:
        """Looks for new namespaces if an unknown address was asked for, and lets go of those that are gone.

        Costs one stat() per known namespace; a search through /proc only when there is cause, and at most every ttl
        seconds (less often where it takes long). True if it searched. Enters other namespaces for a moment: RuntimeError if it cannot come back.
        """
        now = time.monotonic()
        if self.count == 0:
            raise ValueError("the directory is closed")
        if now < self.due:
            return False
        cdef int i
        for i in range(1, self.count):
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

    def refresh_addresses(self):
        """Takes in the changes of home's addresses heard of; OSError if they cannot be read."""
        cdef int rc = self.refresh_home()
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "rtnetlink")

    cdef bint seen(self, int index) except -1:
        try:
            return os.stat(self.witnesses[index]).st_ino == self.members[index].inode
        except OSError:
            return False

    cdef int retire(self, dict found) except -1:
        cdef int i, kept = 1
        for i in range(1, self.count):
            if self.members[i].inode not in found:
                member_close(&self.members[i])
                continue
            self.members[kept] = self.members[i]
            self.names[kept], self.witnesses[kept] = found[self.members[i].inode]
            kept += 1
        self.count = kept
        del self.names[kept:], self.witnesses[kept:]
        return 0

    cdef int enlist(self, dict found) except -1:
        known = {self.members[i].inode for i in range(self.count)}
        self.skipped = 0
        for inode, (name, path) in found.items():
            if inode in known:
                continue
            if self.count > self.limit:
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

    cdef int find(self, const tuple_t *tuple, bint listener, sock_t *out, int *index) noexcept nogil:
        cdef sock_t sock
        cdef int i, rc, owners = 0, found = 0, error = 0
        memset(out, 0, sizeof(out[0]))
        index[0] = -1
        if self.count == 0:
            return -ENXIO
        # The flow was seen at home: an address home has is home's, whoever else has it too.
        if addresses_find(&self.members[0].addresses, &tuple.src[0], tuple.family) >= 0:
            index[0] = 0
            return member_lookup(&self.members[0], tuple, listener, self.check, out)
        for i in range(1, self.count):
            if addresses_find(&self.members[i].addresses, &tuple.src[0], tuple.family) < 0:
                continue
            owners += 1
            rc = member_lookup(&self.members[i], tuple, listener, self.check, &sock)
            if rc < 0:
                error = rc
            elif rc == 1:
                found += 1
                index[0] = i
                out[0] = sock
        if owners == 0:
            self.wanted = True
            return -ENXIO
        if found > 1 or found == 1 and error < 0:
            memset(out, 0, sizeof(out[0]))
            out.ambiguous = 1
            index[0] = -1
            return 1
        return found or error

    cdef int search(self, const tuple_t *tuple, bint listener, sock_t *out, int *index) noexcept nogil:
        cdef int rc = self.find(tuple, listener, out, index)
        cdef uint64_t now
        cdef int i
        if rc != -ENXIO:
            return rc
        now = now_ns()
        if now - self.drained < <uint64_t>DRAIN_NS * self.count:
            return rc
        self.drained = now
        for i in range(self.count):
            addresses_refresh(&self.members[i].addresses)
        return self.find(tuple, listener, out, index)

    cdef int lookup(self, const tuple_t *tuple, sock_t *out, int *index) noexcept nogil:
        return self.search(tuple, False, out, index)

    cdef int lookup_listener(self, const tuple_t *tuple, sock_t *out, int *index) noexcept nogil:
        return self.search(tuple, True, out, index)

    cdef int refresh_home(self) noexcept nogil:
        return addresses_refresh(&self.members[0].addresses) if self.count else -ENXIO

    cdef const addresses_t *home(self) noexcept nogil:
        return &self.members[0].addresses if self.count else NULL

    cdef uint64_t inode(self, int index) noexcept nogil:
        return self.members[index].inode if 0 <= index < self.count else 0

    def namespaces(self) -> dict:
        """The namespaces known, as {inode: name}; home comes first."""
        return {self.members[i].inode: self.names[i] for i in range(self.count)}

    def find_socket(self, proto, src, sport, dst, dport, *, listener=False):
        """The socket at src:sport in whichever namespace has src, as (inode of the namespace, dict).

        None if that namespace has no such socket. The inode is None if several namespaces have one. Raises
        LookupError if no known namespace has the address, OSError.
        """
        cdef tuple_t tuple
        cdef sock_t sock
        cdef int index, rc
        cdef bint only_listener = listener
        set_tuple(&tuple, src, sport, dst, dport, proto)
        with nogil:
            rc = self.search(&tuple, only_listener, &sock, &index)
        if rc == -ENXIO:
            raise LookupError(f"no known network namespace has {src}")
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "sock_diag")
        if rc == 0:
            return None
        return self.members[index].inode if index >= 0 else None, sock_dict(&sock)
