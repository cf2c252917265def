"""inode -> the processes that hold the socket, by the links in /proc/PID/fd, looking first where it likely is.

A link costs 4 microseconds, so a full scan is the last thing to do: what was seen before is confirmed by one link, then
come the processes that were the answer lately, those the caller has a reason to suspect (the socket's cgroup), those
of the socket's user, newest first, and the rest. A token bucket bounds the time spent on scanning.
"""
cimport cython
from libc.errno cimport EACCES, EAGAIN, ENOMEM, EPERM
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from nfct_fast.kernel.fstatat cimport fstatat
from posix.stat cimport struct_stat
from posix.unistd cimport close

from nfct_fast.sockets.socket_holders cimport holder_add, holders_family, holders_order, holders_t, socket_held
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.procfs cimport (
    numbers_close, numbers_next, numbers_open, numbers_t, procfs_decimal, procfs_link_number, procfs_name,
    procfs_open, procfs_read,
)
from nfct_fast.processes.proc_stat cimport PF_EXITING, STAT_SIZE, stat_read, stat_t

import os

cdef enum:
    KNOWN = 32768            # inodes remembered, 24 bytes each
    MISSING = 4096
    VISITS = 32768
    AT_ONCE_NS = 40_000_000  # of scanning, after which the rest waits for another flow
    CHARGED = 64             # processes between two looks at the clock
    RECENT = 8


cdef bint scanner_holds(FdScanner scanner, const holder_t *holder, uint64_t inode) noexcept nogil:
    return socket_held(scanner._root, holder.pid, holder.fd, inode)


cdef inline uint32_t inode_slot(uint64_t inode, uint32_t size) noexcept nogil:
    # The upper bits: they spread numbers that follow each other, as inodes do, evenly over all places (Knuth 6.4), so that sockets
    # of one process do not push out each other, and it is not looked through again for each.
    return <uint32_t>(((inode * <uint64_t>0x9e3779b97f4a7c15) >> 32) * size >> 32)


cdef int holders_collect(FdScanner self, uint64_t inode, int32_t pid, int32_t fd, const int32_t *candidates, int n,
                         holders_t *out) noexcept nogil:
    cdef known_t *known = &self._known[inode_slot(inode, KNOWN)]
    holders_family(self._root, inode, pid, fd, candidates, n, out)
    known.inode = inode
    known.pid = out.at[0].pid
    known.fd = out.at[0].fd
    known.alone = out.count == 1
    recent_put(self, out.at[0].pid, out.at[0].fd)
    return out.count


cdef void recent_put(FdScanner self, int32_t pid, int32_t fd) noexcept nogil:
    cdef int i = 0
    while i < RECENT - 1 and self._recent[i].pid != pid:
        i += 1
    while i:
        self._recent[i] = self._recent[i - 1]
        i -= 1
    self._recent[0].pid = pid
    self._recent[0].fd = fd


cdef bint refill(FdScanner self) noexcept nogil:
    # Spent to the last, a quarter is saved up first: what little comes in between would go on the same first process each time.
    cdef int64_t now = monotonic_ns()
    self._tokens += <int64_t>(<double>(now - self._refilled_at) * self._rate)
    if self._tokens > self._burst:
        self._tokens = self._burst
    self._refilled_at = now
    self._saving = self._tokens <= 0 or self._saving and self._tokens < self._burst // 4
    return not self._saving


cdef bint charge(FdScanner self, int64_t *began) noexcept nogil:
    """For what has been done since *began, which is now afterwards: whether there is something left."""
    cdef int64_t now = monotonic_ns()
    self._tokens -= now - began[0]
    began[0] = now
    if refill(self):
        return True
    self.refused += 1
    return False


cdef bint marked(FdScanner self, visit_t *visits, int32_t pid) noexcept nogil:
    cdef visit_t *visit = &visits[pid & (VISITS - 1)]
    return visit.pid == pid and visit.turn == self._turn


cdef void mark(FdScanner self, visit_t *visits, int32_t pid) noexcept nogil:
    cdef visit_t *visit = &visits[pid & (VISITS - 1)]
    visit.pid = pid
    visit.turn = self._turn


cdef bint visited(FdScanner self, int32_t pid) noexcept nogil:
    if marked(self, self._visits, pid):
        return True
    mark(self, self._visits, pid)
    return False


cdef void unvisit(FdScanner self, int32_t pid) noexcept nogil:
    cdef visit_t *visit = &self._visits[pid & (VISITS - 1)]
    if visit.pid == pid:
        visit.pid = 0


# Looks through one process. 1: it holds the inode, by *fd; 0; -EAGAIN, -EACCES.
cdef int process_scan(FdScanner self, int32_t pid, uint64_t inode, int32_t *fd, bint bounded) noexcept nogil:
    cdef numbers_t numbers
    cdef char name[64]
    cdef uint64_t found
    cdef known_t *known
    cdef int64_t began
    cdef int rc, i, link = 0, answer = 0
    if bounded and not refill(self):
        self.refused += 1
        unvisit(self, pid)
        return -EAGAIN
    procfs_name(name, pid, b"fd")
    began = monotonic_ns()
    rc = numbers_open(&numbers, self._root, name)
    if rc < 0:
        return -EACCES if rc == -EACCES or rc == -EPERM else 0
    self.scanned_processes += 1
    while answer == 0:
        rc = numbers_next(&numbers)
        if rc <= 0:
            break
        self.scanned_fds += rc
        # The newest socket tends to have the highest number.
        for i in range(rc - 1, -1, -1):
            procfs_name(name, numbers.at[i], b"")
            link = procfs_link_number(numbers.fd, name, b"socket:[", &found)
            if link == -EACCES or link == -EPERM:
                answer = -EACCES
                break
            if link != 1:
                continue
            if found == inode:
                fd[0] = numbers.at[i]
                answer = 1
                break
            known = &self._known[inode_slot(found, KNOWN)]
            if known.inode != found:
                known.inode = found
                known.pid = pid
                known.fd = numbers.at[i]
                known.alone = 0
        if bounded:
            self._tokens -= monotonic_ns() - began
            began = monotonic_ns()
            if answer == 0 and rc > 900 and not refill(self):
                self.refused += 1
                unvisit(self, pid)
                answer = -EAGAIN
    numbers_close(&numbers)
    return answer


cdef int pids_list(FdScanner self) noexcept nogil:
    cdef numbers_t numbers
    cdef int32_t *grown
    cdef uint32_t count = 0, room
    cdef int rc, i
    rc = numbers_open(&numbers, self._root, b".")
    if rc < 0:
        return rc
    while True:
        rc = numbers_next(&numbers)
        if rc <= 0:
            break
        if count + rc > self._pids_room:
            room = (count + rc) * 2
            grown = <int32_t *>realloc(self._pids, room * sizeof(int32_t))
            if grown == NULL:
                rc = -ENOMEM
                break
            self._pids = grown
            self._pids_room = room
        for i in range(rc):
            self._pids[count] = numbers.at[i]
            count += 1
    numbers_close(&numbers)
    return rc if rc < 0 else <int>count


cdef int newest(FdScanner self, int count) noexcept nogil:
    # /proc lists by number, and numbers are given in turn: the newest is the last one given, told by loadavg.
    cdef char buf[128]
    cdef const char *p
    cdef uint64_t last = 0x7fffffff
    cdef ssize_t got = procfs_read(self._root, b"loadavg", buf, sizeof(buf))
    cdef int low = 0, high = count, middle
    if got > 0:
        p = buf + got - 1
        while p > buf and p[0] != c' ':
            p -= 1
        p += 1
        procfs_decimal(&p, buf + got, &last)
    while low < high:
        middle = (low + high) // 2
        if <uint64_t>self._pids[middle] <= last:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low else count - 1


cdef bint of_uid(FdScanner self, int32_t pid, uint32_t uid) noexcept nogil:
    cdef char name[64]
    cdef struct_stat st
    procfs_name(name, pid, b"")
    return fstatat(self._root, name, &st, 0) == 0 and st.st_uid == uid


cdef bint has_fds(FdScanner self, int32_t pid) noexcept nogil:
    cdef char name[64]
    cdef struct_stat st
    if not self._sized:
        return True
    procfs_name(name, pid, b"fd")
    return fstatat(self._root, name, &st, 0) != 0 or st.st_size > 0


cdef int everywhere(FdScanner self, uint64_t inode, uint32_t uid, bint uid_known, int32_t *pid, int32_t *fd,
                    holders_t *out) noexcept nogil:
    cdef int count, first, i, at, rung, rc
    cdef int64_t began = monotonic_ns()
    if not refill(self):
        self.refused += 1
        return -EAGAIN
    count = pids_list(self)
    self._tokens -= monotonic_ns() - began
    if count < 0:
        return count
    first = newest(self, count)
    began = monotonic_ns()
    for rung in range(RUNG_UID if uid_known else RUNG_REST, RUNG_REST + 1):
        for i in range(count):
            at = first - i if first >= i else first - i + count
            pid[0] = self._pids[at]
            if i % CHARGED == CHARGED - 1 and not charge(self, &began):
                return -EAGAIN
            # Of a search that goes on, most of this is known.
            if marked(self, self._visits, pid[0]) or rung == RUNG_UID and marked(self, self._strangers, pid[0]):
                continue
            if rung == RUNG_UID and not of_uid(self, pid[0], uid):
                mark(self, self._strangers, pid[0])
                continue
            mark(self, self._visits, pid[0])
            if not has_fds(self, pid[0]):
                continue
            self._tokens -= monotonic_ns() - began
            rc = process_scan(self, pid[0], inode, fd, True)
            began = monotonic_ns()
            if rc == -EACCES:
                out.denied += 1
            elif rc != 0:
                out.rung = rung
                return rc
    return 0


cdef int some(FdScanner self, uint64_t inode, const int32_t *pids, int n, int32_t *pid, int32_t *fd,
              holders_t *out) noexcept nogil:
    cdef int i, rc
    for i in range(n):
        pid[0] = pids[i]
        if pid[0] <= 0 or visited(self, pid[0]):
            continue
        rc = process_scan(self, pid[0], inode, fd, True)
        if rc == -EACCES:
            out.denied += 1
        elif rc != 0:
            return rc
    return 0


cdef int ladder(FdScanner self, uint64_t inode, uint32_t uid, bint uid_known, const int32_t *candidates, int n,
                int32_t *pid, int32_t *fd, holders_t *out) noexcept nogil:
    cdef int32_t lately[RECENT]
    cdef int i, j, rc, known = 0
    out.rung = RUNG_RECENT
    # A process that opens and closes one socket after the other gets the same fd again.
    for i in range(RECENT):
        pid[0] = self._recent[i].pid
        fd[0] = self._recent[i].fd
        if pid[0] and socket_held(self._root, pid[0], fd[0], inode):
            return 1
    for i in range(RECENT):
        for j in range(n):
            if candidates[j] == self._recent[i].pid:
                break
        else:
            if n:
                continue    # the caller knows better
        lately[known] = self._recent[i].pid
        known += 1
    rc = some(self, inode, lately, known, pid, fd, out)
    if rc:
        return rc
    out.rung = RUNG_CANDIDATES
    rc = some(self, inode, candidates, n, pid, fd, out)
    if rc:
        return rc
    return everywhere(self, inode, uid, uid_known, pid, fd, out)


cdef bint somebody_ends(FdScanner self) noexcept nogil:
    # An exiting process lets go of its descriptors before its sockets are closed: with many, by milliseconds.
    cdef char buf[STAT_SIZE]
    cdef stat_t stat
    cdef int64_t began = monotonic_ns()
    cdef bint found = False
    cdef int i
    for i in range(pids_list(self)):
        if i % CHARGED == CHARGED - 1 and not charge(self, &began):
            return True     # perhaps
        if stat_read(self._root, self._pids[i], buf, &stat) == 0 and stat.flags & PF_EXITING and stat.state != c'Z':
            found = True
            break
    charge(self, &began)
    return found


@cython.final
@cython.auto_pickle(False)
cdef class FdScanner:
    """Finds who holds a socket.

    `proc`: where procfs is mounted. `budget`: seconds of scanning allowed per second, of which 0.04 at once; inf is no bound. `missing_ttl`: seconds for which "nobody holds it" is believed. One thread at a time. Other users'
    processes need CAP_SYS_PTRACE. OSError if `proc` cannot be opened.

    Where several processes hold a socket, the one to name is the oldest, as a socket is inherited from the one that
    opened it; pid 1 and systemd only if there is no other. Others are found if they have it by inheritance; one that
    got it over a UNIX socket is found if it is the only one, or by `all_holders`.
    """

    def __cinit__(self, proc="/proc", double budget=0.2, double missing_ttl=2.0):
        cdef bytes path = os.fsencode(proc)
        cdef struct_stat st
        self._root = -1
        self._rate = min(max(budget, 0.0), 1e6)
        self._burst = self._tokens = min(<int64_t>(self._rate * 1e9), <int64_t>AT_ONCE_NS)
        self._refilled_at = monotonic_ns()
        self._missing_ttl = <int64_t>(missing_ttl * 1e9)
        self._known = <known_t *>calloc(KNOWN, sizeof(known_t))
        self._missing = <missing_t *>calloc(MISSING, sizeof(missing_t))
        self._visits = <visit_t *>calloc(VISITS, sizeof(visit_t))
        self._strangers = <visit_t *>calloc(VISITS, sizeof(visit_t))
        if self._known == NULL or self._missing == NULL or self._visits == NULL or self._strangers == NULL:
            raise MemoryError
        self._root = procfs_open(path)
        if self._root < 0:
            raise OSError(-self._root, os.strerror(-self._root), proc)
        self._sized = fstatat(self._root, b"self/fd", &st, 0) == 0 and st.st_size > 0

    def __dealloc__(self):
        free(self._known)
        free(self._missing)
        free(self._visits)
        free(self._strangers)
        free(self._pids)
        if self._root >= 0:
            close(self._root)

    def close(self):
        """Close the descriptor; no search may be under way."""
        if self._root >= 0:
            close(self._root)
        self._root = -1

    cdef int find(self, uint64_t inode, uint32_t uid, bint uid_known, const int32_t *candidates, int n,
                  holders_t *out) noexcept nogil:
        cdef known_t *known = &self._known[inode_slot(inode, KNOWN)]
        cdef missing_t *missing = &self._missing[inode_slot(inode, MISSING)]
        cdef int32_t pid, fd
        cdef int rc
        cdef bint resumed
        memset(out, 0, sizeof(out[0]))
        if inode == 0:
            return 0
        if known.inode == inode and socket_held(self._root, known.pid, known.fd, inode):
            out.rung = RUNG_CACHE
            if known.alone:
                holder_add(out, known.pid, known.fd)
                return 1
            return holders_collect(self, inode, known.pid, known.fd, candidates, n, out)
        if missing.inode == inode and monotonic_ns() < missing.until:
            out.ending = missing.ending
            return missing.answer
        # A search that was cut short goes on where it was; but nobody holds a socket only after one in one piece.
        resumed = self._unfinished == inode
        if not resumed:
            self._turn += 1
        rc = ladder(self, inode, uid, uid_known, candidates, n, &pid, &fd, out)
        self._unfinished = inode if rc == -EAGAIN else 0
        if rc == 0 and resumed:
            return -EAGAIN
        if rc > 0:
            return holders_collect(self, inode, pid, fd, candidates, n, out)
        out.rung = 0
        if rc == 0:
            rc = -EACCES if out.denied else 0
            out.ending = somebody_ends(self)
            missing.inode = inode
            missing.ending = out.ending
            missing.until = monotonic_ns() + self._missing_ttl
            missing.answer = rc
        return rc

    cdef int find_all(self, uint64_t inode, holders_t *out) noexcept nogil:
        cdef int32_t fd = 0
        cdef int count, i, rc
        memset(out, 0, sizeof(out[0]))
        count = pids_list(self)
        if count < 0:
            return count
        for i in range(count):
            rc = process_scan(self, self._pids[i], inode, &fd, False)
            if rc == 1:
                holder_add(out, self._pids[i], fd)
            elif rc == -EACCES:
                out.denied += 1
        holders_order(self._root, out)
        out.complete = 1
        out.rung = RUNG_REST if out.count else 0
        return -EACCES if out.denied and not out.count else out.count

    def holders(self, uint64_t inode, uid=None, candidates=()):
        """Who holds the socket `inode`: a list of (pid, fd), the one to name first; [] if nobody does.

        `uid` of the socket and `candidates`, up to 256 pids, tell where to look first. BlockingIOError if the bound on
        scanning is reached; PermissionError if it was not found and some processes could not be looked into.
        """
        cdef int32_t pids[256]
        cdef holders_t out
        cdef int n = 0
        for pid in candidates[:256]:
            pids[n] = pid
            n += 1
        return holders_list(self.find(inode, uid or 0, uid is not None, pids, n, &out), &out)

    def all_holders(self, uint64_t inode):
        """All who hold the socket `inode`, up to 32, as `holders` gives them: a full scan, of up to seconds."""
        cdef holders_t out
        return holders_list(self.find_all(inode, &out), &out)


cdef list holders_list(int rc, const holders_t *out):
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc))
    return [(out.at[i].pid, out.at[i].fd) for i in range(out.count)]
