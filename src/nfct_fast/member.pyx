"""One network namespace of this host: its addresses, and the sockets in it.

It is entered once, to make sockets there that answer for it from then on; and again where only a table in /proc/net
will do.
"""
from libc.errno cimport ENOMEM, ESTALE, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset, strdup
from posix.fcntl cimport O_RDONLY, open as c_open, openat
from posix.stat cimport struct_stat
from posix.unistd cimport close

from fstatat cimport fstatat
from linux_netlink cimport NETLINK_SOCK_DIAG
from procfs_calls cimport AT_EMPTY_PATH, O_CLOEXEC

from nfct_fast.addresses cimport addresses_close, addresses_find, addresses_init, addresses_open
from nfct_fast.diagmsg cimport diag_match_t
from nfct_fast.flow cimport tuple_t
from nfct_fast.netquery cimport netquery_close, netquery_open
from nfct_fast.procnet cimport procnet_free, procnet_init, procnet_lookup, procnet_survey, procnet_t
from nfct_fast.sock cimport sock_t
from nfct_fast.sockdiag cimport diag_lookup, diag_lookup_listener

cdef extern from "<sched.h>" nogil:
    enum: CLONE_NEWNET
    int setns(int fd, int nstype)

cdef enum:
    TABLE_AGE_NS = 20_000_000


cdef int member_open(member_t *member, uint64_t inode, uint64_t cookie, const char *path, bint diag) noexcept nogil:
    cdef int rc
    memset(member, 0, sizeof(member[0]))
    member.inode = inode
    member.cookie = cookie
    member.diag.fd = -1
    addresses_init(&member.addresses)
    rc = member_moved(member, path)
    if rc == 0 and diag:
        rc = netquery_open(&member.diag, NETLINK_SOCK_DIAG)
    if rc == 0:
        rc = addresses_open(&member.addresses)
    if rc < 0:
        member_close(member)
    return rc


cdef void member_close(member_t *member) noexcept nogil:
    netquery_close(&member.diag)
    addresses_close(&member.addresses)
    if member.tables != NULL:
        procnet_free(member.tables)
    free(member.tables)
    free(member.path)
    member.tables = NULL
    member.path = NULL


cdef int member_moved(member_t *member, const char *path) noexcept nogil:
    cdef char *copy = strdup(path)
    if copy == NULL:
        return -ENOMEM
    free(member.path)
    member.path = copy
    return 0


cdef int member_lookup(member_t *member, const tuple_t *tuple, bint listener, sock_t *out) noexcept nogil:
    cdef int rc, ifindex
    rc = diag_lookup_listener(&member.diag, tuple, 0, out) if listener else diag_lookup(&member.diag, tuple, 0, out)
    if rc == 0:
        # Sockets bound to a device, as all are that speak IPv6 link-local, are found only if it is named. Most
        # speak from an address of that device.
        ifindex = addresses_find(&member.addresses, &tuple.src[0], tuple.family)
        if ifindex > 0:
            rc = (diag_lookup_listener(&member.diag, tuple, ifindex, out) if listener
                  else diag_lookup(&member.diag, tuple, ifindex, out))
    return rc


cdef int fd_inode(int fd, uint64_t *inode) noexcept nogil:
    cdef struct_stat st
    if fstatat(fd, b"", &st, AT_EMPTY_PATH) < 0:
        return -errno
    inode[0] = st.st_ino
    return 0


# The thread into the member's namespace. 0 (*back is what leads back, -1 if it was there already) or -errno.
cdef int member_enter(const member_t *member, int root, int *back) noexcept nogil:
    cdef uint64_t inode = 0
    cdef int fd, rc
    back[0] = -1
    fd = openat(root, b"thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    if fd < 0:
        return -errno
    rc = fd_inode(fd, &inode)
    if rc < 0 or inode == member.inode:
        close(fd)
        return rc
    back[0] = fd
    fd = c_open(member.path, O_RDONLY | O_CLOEXEC)
    rc = -errno if fd < 0 else fd_inode(fd, &inode)
    if rc == 0 and inode != member.inode:
        rc = -ESTALE
    if rc == 0 and setns(fd, CLONE_NEWNET) < 0:
        rc = -errno
    if fd >= 0:
        close(fd)
    if rc < 0:
        close(back[0])
    return rc


cdef int member_leave(int back) noexcept nogil:
    cdef int rc = 0
    if back >= 0:
        if setns(back, CLONE_NEWNET) < 0:
            rc = -errno
        close(back)
    return rc


cdef int tables_enter(member_t *member, int root, int *back) noexcept nogil:
    if member.tables == NULL:
        member.tables = <procnet_t *>malloc(sizeof(procnet_t))
        if member.tables == NULL:
            return -ENOMEM
        procnet_init(member.tables, root, b"thread-self/net/", TABLE_AGE_NS, 0)
    return member_enter(member, root, back)


cdef int tables_leave(int back, int found, bint *stranded) noexcept nogil:
    """What was found, or -errno if the thread cannot go back."""
    cdef int rc = member_leave(back)
    if rc < 0:
        stranded[0] = True
    return min(found, rc) if found <= 0 else rc or found


cdef int member_tables_lookup(member_t *member, int root, const tuple_t *tuple, int64_t when, sock_t *out,
                              bint *stranded) noexcept nogil:
    cdef int back = -1
    cdef int rc = tables_enter(member, root, &back)
    return rc if rc < 0 else tables_leave(back, procnet_lookup(member.tables, tuple, when, out), stranded)


cdef int member_tables_survey(member_t *member, int root, const tuple_t *tuple, int64_t when, diag_match_t *out,
                              int room, bint *stranded) noexcept nogil:
    cdef int back = -1
    cdef int rc = tables_enter(member, root, &back)
    return rc if rc < 0 else tables_leave(back, procnet_survey(member.tables, tuple, when, out, room), stranded)
