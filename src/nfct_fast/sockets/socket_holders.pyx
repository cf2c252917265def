"""Find the relatives that hold the same socket, and order the holders so that the one to name comes first.

Processes share a socket by fork, and then hold it under the same descriptor: one readlink for each relative is enough.
"""
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcmp

from nfct_fast.kernel.procfs cimport procfs_decimal, procfs_link_number, procfs_name, procfs_read
from nfct_fast.processes.proc_stat cimport STAT_SIZE, stat_read, stat_t

cdef enum:
    ANCESTORS = 32           # generations of parents that are checked
    LIKELY_CHECKED = 16      # likely pids that are checked, which takes 2 to 4 us each for every new socket
    NEWEST_CHILDREN = 4      # children that are checked before the older ones are skipped


cdef void fd_name(char *out, int32_t pid, int32_t fd) noexcept nogil:
    cdef int n = procfs_name(out, pid, b"fd/")
    procfs_name(out + n, fd, b"")


cdef bint holds_socket(int root, int32_t pid, int32_t fd, uint64_t inode) noexcept nogil:
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
    # Oldest first: children inherit a socket from the process that opened it, which is therefore the oldest. A service
    # manager comes last, as it opened the socket on behalf of another process.
    cdef bint is_manager[HOLDERS_MAX]
    cdef bint moved_is_manager
    cdef char buf[STAT_SIZE]
    cdef stat_t stat
    cdef holder_t moved
    cdef int i, j
    if out.count < 2:
        return
    for i in range(out.count):
        is_manager[i] = out.at[i].pid == 1
        if stat_read(root, out.at[i].pid, buf, &stat) == 0:
            out.at[i].start = stat.start
            is_manager[i] = is_manager[i] or (stat.comm.size == 7 and memcmp(stat.comm.at, b"systemd", 7) == 0)
    for i in range(1, out.count):
        moved = out.at[i]
        moved_is_manager = is_manager[i]
        j = i
        while j and (is_manager[j - 1] > moved_is_manager or (is_manager[j - 1] == moved_is_manager and (
                out.at[j - 1].start > moved.start
                or (out.at[j - 1].start == moved.start and out.at[j - 1].pid > moved.pid)))):
            out.at[j] = out.at[j - 1]
            is_manager[j] = is_manager[j - 1]
            j -= 1
        out.at[j] = moved
        is_manager[j] = moved_is_manager


cdef void children_add(int root, int32_t pid, int32_t fd, uint64_t inode, holders_t *out) noexcept nogil:
    # The file lists the children that the main thread forked, the newest last (CONFIG_PROC_CHILDREN, which
    # distributions set). If none of the newest holds the socket, the older ones were forked before it was opened: skip
    # them, as a server may have hundreds.
    cdef char name[128]
    cdef char buf[8192]
    cdef const char *p = buf
    cdef int32_t children[2048]
    cdef uint64_t child
    cdef ssize_t got
    cdef int count = 0, i, checked = 0, without = 0
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
        checked += 1
        if holds_socket(root, children[i], fd, inode):
            holder_add(out, children[i], fd)
        else:
            without += 1
            if without == checked == NEWEST_CHILDREN:
                break


cdef int32_t parent_of(int root, int32_t pid) noexcept nogil:
    cdef char buf[STAT_SIZE]
    cdef stat_t stat
    return stat.ppid if stat_read(root, pid, buf, &stat) == 0 else 0


cdef void holders_add_relatives(int root, uint64_t inode, int32_t pid, int32_t fd, const int32_t *likely_pids, int n,
                         holders_t *out) noexcept nogil:
    cdef int32_t parent = pid
    cdef int i, _
    holder_add(out, pid, fd)
    for _ in range(ANCESTORS):
        parent = parent_of(root, parent)
        if parent <= 0 or not holds_socket(root, parent, fd, inode):
            break
        holder_add(out, parent, fd)
    for i in range(min(n, <int>LIKELY_CHECKED)):
        if likely_pids[i] != pid and holds_socket(root, likely_pids[i], fd, inode):
            holder_add(out, likely_pids[i], fd)
    i = 0
    while i < out.count and not out.more:
        children_add(root, out.at[i].pid, fd, inode, out)
        i += 1
    holders_order(root, out)
