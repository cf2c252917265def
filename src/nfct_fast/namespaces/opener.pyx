"""Open netlink sockets and tables of /proc/net in other network namespaces. They stay there, whoever reads them.

Entering a namespace takes CAP_SYS_ADMIN; reading a conntrack table takes a socket that was opened with CAP_NET_ADMIN.
So that the program can give up both, it forks a helper process at the start, which receives the descriptor of a
namespace, enters it, and returns the descriptor of a netlink socket or a table. The helper reads nothing from either.
It also makes the larger maps for the BPF notes, once and when they are needed, as that takes CAP_SYS_ADMIN, too.
"""
cimport cython
from libc.errno cimport EINVAL, EPERM, EPIPE, ESRCH, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset, strcpy, strlen, strncpy
from posix.fcntl cimport O_RDONLY, openat
from posix.stat cimport struct_stat
from posix.unistd cimport close

from nfct_fast.kernel.fstatat cimport fstatat
from nfct_fast.kernel.pass_fd cimport pass_receive, pass_send
from procfs_calls cimport AT_EMPTY_PATH, O_CLOEXEC
from sys_socket cimport AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket

from nfct_fast.kernel.open_netns cimport netns_enter
from nfct_fast.kernel.procfs cimport procfs_open

import functools
import os

cdef extern from "nfct_fast/sockets/owners_maps.h" nogil:
    enum: OWNERS_GROWING
    int owners_larger_map(int outer, unsigned int kind, uint32_t entries)

cdef enum:
    STRANDED = 1 << 20       # beyond any errno: the thread could not return from another namespace
    LARGER_MAP = -2          # open_request_t.protocol for a map of kind 0; LARGER_MAP - kind for the others


cdef int inode_of(int fd, uint64_t *inode) noexcept nogil:
    cdef struct_stat st
    if fstatat(fd, b"", &st, AT_EMPTY_PATH) < 0:
        return -errno
    inode[0] = st.st_ino
    return 0


cdef int fetch_here(int root, const open_request_t *request) noexcept nogil:
    cdef char path[40]
    cdef int fd
    cdef int i
    if request.protocol >= 0:
        fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, request.protocol)
    else:
        for i in range(<int>sizeof(request.table)):
            if not (c'a' <= request.table[i] <= c'z' or c'0' <= request.table[i] <= c'9'):
                break
        else:
            return -EINVAL
        if i == 0 or request.table[i] != 0:      # an attacker who has taken over the program may request other files
            return -EINVAL
        strcpy(path, b"thread-self/net/")
        strcpy(path + strlen(path), request.table)
        fd = openat(root, path, O_RDONLY | O_CLOEXEC)
    return fd if fd >= 0 else -errno


cdef int fetch(int root, int ns, const open_request_t *request) noexcept nogil:
    """Open in the namespace `ns` what is requested. Return a descriptor, -errno, or -STRANDED."""
    cdef uint64_t here = 0, there = 0
    cdef int fd
    cdef int own = openat(root, b"thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    if own < 0:
        return -errno
    fd = inode_of(own, &here)
    if fd == 0:
        fd = inode_of(ns, &there)
    if fd == 0 and here != there:
        fd = netns_enter(ns)
    if fd == 0:
        fd = fetch_here(root, request)
        if here != there and netns_enter(own) < 0:
            if fd >= 0:
                close(fd)
            fd = -STRANDED
    close(own)
    return fd


cdef int larger_here(int outer, const open_request_t *request) noexcept nogil:
    cdef uint32_t entries
    memcpy(&entries, request.table, sizeof(entries))
    return owners_larger_map(outer, <unsigned int>(LARGER_MAP - request.protocol), entries)


cdef int larger_once(int outer, const open_request_t *request, bint *made) noexcept nogil:
    """Make each map only once: an attacker who has taken over the program must not use up the kernel's memory."""
    cdef int kind = LARGER_MAP - request.protocol
    if not 0 <= kind < OWNERS_GROWING or made[kind]:
        return -EINVAL
    made[kind] = True
    return larger_here(outer, request)


cdef void serve_at(int fd, int root) noexcept nogil:
    cdef open_request_t request
    cdef open_reply_t reply
    cdef int ns, made
    cdef bint larger[OWNERS_GROWING]
    memset(larger, 0, sizeof(larger))
    while True:
        if pass_receive(fd, &request, sizeof(request), 0, &ns) != sizeof(request):
            return      # the program has ended
        if ns >= 0 and request.protocol <= LARGER_MAP:
            made = larger_once(ns, &request, larger)
        else:
            made = fetch(root, ns, &request) if ns >= 0 else -EINVAL
        if ns >= 0:
            close(ns)
        reply.number, reply.rc = request.head.number, min(made, 0)
        if made == -STRANDED or pass_send(fd, &reply, sizeof(reply), made if made >= 0 else -1) < 0:
            return
        if made >= 0:
            close(made)


def _serve(int root, int fd):
    with nogil:
        serve_at(fd, root)


def _prepare(path):
    return functools.partial(_serve, procfs_open(path))


@cython.final
@cython.auto_pickle(False)
cdef class Opener:
    """An opener of sockets and tables in other namespaces.

    Args:
        proc: Where /proc is mounted.
        spawn_helper: Rights.spawn_helper, to have a helper process enter namespaces; None: the calling thread enters
            them for a moment.

    Raises:
        OSError: /proc cannot be opened, or the helper cannot be started.
    """

    def __cinit__(self):
        self.root = -1

    def __init__(self, proc="/proc", spawn_helper=None):
        path = os.fsencode(proc)
        if spawn_helper is not None:
            self.channel = HelperChannel(*spawn_helper("nfct-netns", functools.partial(_prepare, path),
                                                       ("sys_admin", "net_admin"), True))
            return
        self.root = procfs_open(path)
        if self.root < 0:
            raise OSError(-self.root, os.strerror(-self.root), proc)

    def __dealloc__(self):
        if self.root >= 0:
            close(self.root)

    def close(self):
        """Close the descriptors and end the helper, while no other method is running."""
        if self.channel is not None:
            self.channel.close()
        if self.root >= 0:
            close(self.root)
        self.root = -1

    def check(self):
        """Raise OSError if the helper has ended."""
        if self.channel is not None:
            self.channel.check()

    cdef int _fetch(self, int ns, open_request_t *request) noexcept nogil:
        cdef open_reply_t reply
        cdef int made
        cdef ssize_t got
        if self.channel is None:
            if request.protocol <= LARGER_MAP:
                return larger_here(ns, request)
            made = fetch(self.root, ns, request)
            if made != -STRANDED:
                return made
            self.stranded = True
            return -ESRCH
        got = self.channel.call(&request.head, sizeof(request[0]), &reply, sizeof(reply), ns, &made)
        if made >= 0:
            return made
        return <int>got if got < 0 else reply.rc if got == sizeof(reply) and reply.rc < 0 else -EPIPE

    def socket(self, space not None, int protocol) -> int:
        """Open a netlink socket in a namespace.

        Args:
            space: The namespace, an open Netns.
            protocol: A NETLINK_* number.

        Returns:
            A descriptor, which the caller closes.

        Raises:
            RuntimeError: The thread entered the namespace and cannot return.
            OSError: The socket cannot be opened.
        """
        cdef int fd = self.netlink(space.fileno(), protocol)
        if self.stranded:
            raise RuntimeError(f"cannot leave network namespace {space.name}")
        if fd < 0:
            why = "entering needs CAP_SYS_ADMIN" if fd == -EPERM else os.strerror(-fd)
            raise OSError(-fd, f"network namespace {space.name}: {why}")
        return fd

    cdef int netlink(self, int ns, int protocol) noexcept nogil:
        cdef open_request_t request
        memset(&request, 0, sizeof(request))
        request.protocol = protocol
        return self._fetch(ns, &request)

    cdef int larger_map(self, int outer, unsigned int kind, uint32_t entries) noexcept nogil:
        cdef open_request_t request
        memset(&request, 0, sizeof(request))
        request.protocol = LARGER_MAP - <int>kind
        memcpy(request.table, &entries, sizeof(entries))
        return self._fetch(outer, &request)

    cdef int table(self, int ns, const char *name) noexcept nogil:
        cdef open_request_t request
        memset(&request, 0, sizeof(request))
        request.protocol = -1
        strncpy(request.table, name, sizeof(request.table) - 1)
        return self._fetch(ns, &request)
