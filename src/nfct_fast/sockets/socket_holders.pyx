"""The processes that hold one socket, and which of them to name.

A socket gets into several processes by fork, and then has the same fd in all of them: one link for each relative tells.
"""
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcmp

from nfct_fast.kernel.procfs cimport procfs_decimal, procfs_link_number, procfs_name, procfs_read
from nfct_fast.processes.proc_stat cimport STAT_SIZE, stat_read, stat_t

cdef enum:
    ANCESTORS = 32
    CANDIDATES_CHECKED = 16  # for holders that are neither parents nor children: 2 to 4 us each, for every new socket
    NEWEST_CHILDREN = 4


cdef void fd_name(char *out, int32_t pid, int32_t fd) noexcept nogil:
    cdef int n = procfs_name(out, pid, b"fd/")
    procfs_name(out + n, fd, b"")


cdef bint socket_held(int root, int32_t pid, int32_t fd, uint64_t inode) noexcept nogil:
    cdef char name[128]
    cdef uint64_t found
    fd_name(name, pid, fd)
    return procfs_link_number(root, name, b"socket:[", &found) == 1 and found == inode


cdef void holder_add(holders_t *out, int32_t pid, int32_t fd) noexcept nogil:
    cdef int i
    for i in range(out.count):
        if out.at[i].pid == pid:
            return
    if out.count == HOLDERS_MAX:
        out.more = 1
        return
    out.at[out.count].pid = pid
    out.at[out.count].fd = fd
    out.at[out.count].start = 0
    out.count += 1


cdef void holders_order(int root, holders_t *out) noexcept nogil:
    # Oldest first: a socket is inherited downwards, so that the oldest is the one that opened it, and children that
    # only got a copy come later. A service manager that opened it for somebody else comes last.
    cdef bint manager[HOLDERS_MAX]
    cdef bint held
    cdef char buf[STAT_SIZE]
    cdef stat_t stat
    cdef holder_t moved
    cdef int i, j
    if out.count < 2:
        return
    for i in range(out.count):
        manager[i] = out.at[i].pid == 1
        if stat_read(root, out.at[i].pid, buf, &stat) == 0:
            out.at[i].start = stat.start
            manager[i] = manager[i] or (stat.comm.size == 7 and memcmp(stat.comm.at, b"systemd", 7) == 0)
    for i in range(1, out.count):
        moved = out.at[i]
        held = manager[i]
        j = i
        while j and (manager[j - 1] > held or (manager[j - 1] == held and (
                out.at[j - 1].start > moved.start or (out.at[j - 1].start == moved.start and out.at[j - 1].pid > moved.pid)))):
            out.at[j] = out.at[j - 1]
            manager[j] = manager[j - 1]
            j -= 1
        out.at[j] = moved
        manager[j] = held


cdef void children_add(int root, int32_t pid, int32_t fd, uint64_t inode, holders_t *out) noexcept nogil:
    # Those its main thread forked (CONFIG_PROC_CHILDREN, as distributions have it), the newest last. If none of the
    # newest has the socket, the older ones, forked before it was opened, are not asked: a server may have hundreds.
    cdef char name[128]
    cdef char buf[8192]
    cdef const char *p = buf
    cdef int32_t children[2048]
    cdef uint64_t child
    cdef ssize_t got
    cdef int count = 0, i, asked = 0, without = 0
    cdef int n = procfs_name(name, pid, b"task/")
    n += procfs_name(name + n, pid, b"children")
    got = procfs_read(root, name, buf, sizeof(buf))
    while got > 0 and count < 2048 and procfs_decimal(&p, buf + got, &child) > 0 and p < buf + got:
        p += 1
        if child <= 0x7fffffff:
            children[count] = <int32_t>child
            count += 1
    for i in range(count - 1, -1, -1):
        if out.more:
            break
        asked += 1
        if socket_held(root, children[i], fd, inode):
            holder_add(out, children[i], fd)
        else:
            without += 1
            if without == asked == NEWEST_CHILDREN:
                break


cdef int32_t parent_of(int root, int32_t pid) noexcept nogil:
    cdef char buf[STAT_SIZE]
    cdef stat_t stat
    return stat.ppid if stat_read(root, pid, buf, &stat) == 0 else 0


cdef void holders_family(int root, uint64_t inode, int32_t pid, int32_t fd, const int32_t *candidates, int n,
                         holders_t *out) noexcept nogil:
    cdef int32_t parent = pid
    cdef int i
    holder_add(out, pid, fd)
    for i in range(ANCESTORS):
        parent = parent_of(root, parent)
        if parent <= 0 or not socket_held(root, parent, fd, inode):
            break
        holder_add(out, parent, fd)
    for i in range(min(n, <int>CANDIDATES_CHECKED)):
        if candidates[i] != pid and socket_held(root, candidates[i], fd, inode):
            holder_add(out, candidates[i], fd)
    i = 0
    while i < out.count and not out.more:
        children_add(root, out.at[i].pid, fd, inode, out)
        i += 1
    holders_order(root, out)
