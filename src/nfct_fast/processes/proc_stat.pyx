"""Parse files of one process in /proc: stat, status, cgroup.

The parsers accept any input: a name may contain anything, and a file may end anywhere.
"""
from libc.errno cimport ESRCH
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.kernel.procfs cimport procfs_decimal, procfs_name, procfs_read


cdef uint64_t hash_mix(uint64_t hash, const char *p, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        hash = (hash ^ <unsigned char>p[i]) * <uint64_t>0x100000001b3
    return hash


cdef int stat_parse(const char *buf, size_t size, stat_t *out) noexcept nogil:
    # proc_pid_stat(5). comm may hold spaces, newlines and ")": the numbers begin after the last one.
    cdef const char *p = <const char *>memchr(buf, c'(', size)
    cdef const char *end = buf + size
    cdef const char *last = end - 1
    cdef uint64_t value, hash = <uint64_t>0xcbf29ce484222325
    cdef const char *word
    cdef int field
    memset(out, 0, sizeof(out[0]))
    if p == NULL:
        return 0
    while last > p and last[0] != c')':
        last -= 1
    if last <= p or last + 4 > end:
        return 0
    out.comm.at = p + 1
    out.comm.size = last - p - 1
    out.state = last[2]
    hash = hash_mix(hash, out.comm.at, out.comm.size)
    p = last + 3
    for field in range(4, 53):
        while p < end and p[0] == c' ':
            p += 1
        word = p
        if p < end and p[0] == c'-':
            p += 1
        value = 0
        if procfs_decimal(&p, end, &value) <= 0:
            break
        if field == 4:
            out.ppid = <int32_t>value
        elif field == 9:
            out.flags = value
        elif field == 22:
            out.start = value
        elif field in (26, 28, 48, 49):
            # The addresses of code, stack and arguments: every execve randomizes them, unless randomization is turned
            # off. The kernel shows them to those who may trace the process, and 0 or 1 to others.
            hash = hash_mix(hash, word, p - word)
            if field == 26:
                out.code = value
            elif field == 48:
                out.arg_start = value if value > 1 else 0
            elif field == 49 and value > out.arg_start:
                out.arguments = value - out.arg_start
    out.program_hash = hash
    return field > 22


cdef int read_parsed(int dirfd, const char *name, char *buf, stat_t *out) noexcept nogil:
    cdef ssize_t got = procfs_read(dirfd, name, buf, STAT_SIZE)
    if got < 0:
        return <int>got
    return 0 if stat_parse(buf, got, out) else -ESRCH


# This reads the main thread's stat file (task/PID/stat). The one of the process sums up the times of all threads, which
# takes 2.5 ms for 20,000 threads (Linux 6.18).
cdef int stat_read(int root, int32_t pid, char *buf, stat_t *out) noexcept nogil:
    cdef char name[64]
    cdef int n = procfs_name(name, pid, b"task/")
    procfs_name(name + n, pid, b"stat")
    return read_parsed(root, name, buf, out)


cdef int stat_read_below(int dirfd, int32_t pid, char *buf, stat_t *out) noexcept nogil:
    cdef char name[64]
    memcpy(name, b"task/", 5)
    procfs_name(name + 5, pid, b"stat")
    return read_parsed(dirfd, name, buf, out)


cdef bint status_number(const char *buf, const char *end, const char *key, size_t size, uint64_t *out) noexcept nogil:
    cdef const char *p = buf
    while p != NULL and p + size < end:
        if memcmp(p, key, size) == 0:
            p += size
            while p < end and (p[0] == c'\t' or p[0] == c' '):
                p += 1
            return procfs_decimal(&p, end, out) > 0
        p = <const char *>memchr(p, c'\n', end - p)
        if p != NULL:
            p += 1
    return False


cdef span_t cgroup_choose(const char *buf, size_t size, bint *systemd) noexcept nogil:
    # If both hierarchies exist (hybrid), docker and lxc use name=systemd, and leave their processes in their own
    # service in the unified one. So name=systemd wins, unless it is just "/" and the other is not.
    cdef const char *p = buf
    cdef const char *end = buf + size
    cdef const char *line_end
    cdef const char *colon
    cdef span_t best, path
    cdef int rank, best_rank = 0
    best.at = NULL
    systemd[0] = False
    best.size = 0
    while p < end:
        line_end = <const char *>memchr(p, c'\n', end - p)
        if line_end == NULL:
            break    # truncated: half a path would be a wrong one
        rank = 0
        colon = <const char *>memchr(p, c':', line_end - p)
        if colon != NULL:
            if line_end - p > 3 and memcmp(p, b"0::", 3) == 0:
                path.at = p + 3
                rank = 1
            elif line_end - colon > 14 and memcmp(colon, b":name=systemd:", 14) == 0:
                path.at = colon + 14
                rank = 2
        if rank and path.at[0] == c'/':
            path.size = line_end - path.at
            if path.size > 1:
                rank += 2
            if rank > best_rank:
                best = path
                best_rank = rank
                systemd[0] = p[0] != c'0' or p[1] != c':'
        p = line_end + 1
    if best.size > 10 and memcmp(best.at + best.size - 10, b" (deleted)", 10) == 0:
        best.size -= 10
    return best
