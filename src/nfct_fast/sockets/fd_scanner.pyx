"""Find the processes that hold a socket, given its inode, by the links in /proc/PID/fd.

Reading a link takes 4 us, so a full scan is the last resort. A cached holder is confirmed by reading one link.
Otherwise these are scanned in turn: processes that held recently found sockets, those that the caller considers likely
(in the socket's cgroup), those of the socket's user, newest first, and the rest. A token bucket limits the time spent
on that.

This file has more than 400 lines: the stages share the state that lets them resume a search that was cut short.
"""
cimport cython
from libc.errno cimport EACCES, EAGAIN, ENOMEM, EPERM
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from nfct_fast.kernel.fstatat cimport fstatat
from posix.stat cimport struct_stat
from posix.unistd cimport close

from nfct_fast.sockets.socket_holders cimport holder_add, holders_add_relatives, holders_order, holders_t, holds_socket
from nfct_fast.kernel.clock cimport monotonic_ns, thread_cpu_ns
from nfct_fast.kernel.procfs cimport (
    numbers_close, numbers_next, numbers_open, numbers_t, procfs_decimal, procfs_link_number, procfs_name,
    procfs_open, procfs_read,
)
from nfct_fast.processes.proc_stat cimport PF_EXITING, STAT_SIZE, stat_read, stat_t

import os

cdef enum:
    KNOWN = 32768            # entries of FdScanner._known, 24 bytes each
    NEGATIVES = 4096         # entries of FdScanner._negatives
    VISITS = 32768           # entries of FdScanner._visits and _other_users
    CLOCK_EVERY = 64         # processes between two readings of the clock
    RECENT = 8               # entries of FdScanner._recent

BURST = 0.04                 # longest scan without a pause, in s; the next flow resumes the search


cdef bint scanner_holds(FdScanner scanner, const holder_t *holder, uint64_t inode) noexcept nogil:
    return holds_socket(scanner._root, holder.pid, holder.fd, inode)


cdef inline uint32_t inode_slot(uint64_t inode, uint32_t size) noexcept nogil:
    # The upper bits of the product spread consecutive numbers, as inodes are, evenly over the table (Knuth 6.4). The
    # sockets of one process then do not evict each other, which would cost a scan of that process for each.
    return <uint32_t>(((inode * <uint64_t>0x9e3779b97f4a7c15) >> 32) * size >> 32)


cdef int holders_collect(FdScanner self, uint64_t inode, int32_t pid, int32_t fd, const int32_t *likely_pids, int n,
                         holders_t *out) noexcept nogil:
    cdef known_t *known = &self._known[inode_slot(inode, KNOWN)]
    holders_add_relatives(self._root, inode, pid, fd, likely_pids, n, out)
    known.inode = inode
    known.pid = out.at[0].pid
    known.fd = out.at[0].fd
    known.exclusive = out.count == 1
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
    # Once the tokens are used up, wait for a quarter of the burst. Smaller amounts would be spent on the same first
    # process each time.
    cdef int64_t now = monotonic_ns()
    self._tokens += <int64_t>(<double>(now - self._refilled_at) * self._rate)
    if self._tokens > self._burst:
        self._tokens = self._burst
    self._refilled_at = now
    self._refilling = self._tokens <= 0 or self._refilling and self._tokens < self._burst // 4
    self.budget_exhausted += self._refilling
    return not self._refilling


cdef void charge(FdScanner self) noexcept nogil:
    # Processor time, since the machine may stand still or give the processor to others for any time.
    cdef int64_t now = thread_cpu_ns()
    self._tokens -= now - self._charged_until
    self._charged_until = now


cdef bint may_go_on(FdScanner self) noexcept nogil:
    charge(self)
    return refill(self)


cdef bint marked(FdScanner self, visit_t *visits, int32_t pid) noexcept nogil:
    cdef visit_t *visit = &visits[pid & (VISITS - 1)]
    return visit.pid == pid and visit.search == self._search


cdef void mark(FdScanner self, visit_t *visits, int32_t pid) noexcept nogil:
    cdef visit_t *visit = &visits[pid & (VISITS - 1)]
    visit.pid = pid
    visit.search = self._search


cdef bint visited_before(FdScanner self, int32_t pid) noexcept nogil:
    if marked(self, self._visits, pid):
        return True
    mark(self, self._visits, pid)
    return False


cdef void forget_visit(FdScanner self, int32_t pid) noexcept nogil:
    cdef visit_t *visit = &self._visits[pid & (VISITS - 1)]
    if visit.pid == pid:
        visit.pid = 0


# Scan the descriptors of one process. Return 1 if it holds the socket, under *fd, 0 if not, -EAGAIN if the budget is
# exhausted, -EACCES if the process may not be scanned.
cdef int process_scan(FdScanner self, int32_t pid, uint64_t inode, int32_t *fd, bint bounded) noexcept nogil:
    cdef numbers_t numbers
    cdef char name[64]
    cdef uint64_t found
    cdef known_t *known
    cdef int rc, i, link = 0, answer = 0
    if bounded and not refill(self):
        forget_visit(self, pid)
        return -EAGAIN
    procfs_name(name, pid, b"fd")
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
                known.exclusive = 0
        if bounded:
            charge(self)
            if answer == 0 and rc > 900 and not refill(self):
                forget_visit(self, pid)
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
    # Return the index of the newest process. /proc lists pids in ascending order, and the kernel assigns them in turn,
    # so the newest is the last one listed up to the pid assigned last, which ends /proc/loadavg.
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


cdef bint has_uid(FdScanner self, int32_t pid, uint32_t uid) noexcept nogil:
    cdef char name[64]
    cdef struct_stat st
    procfs_name(name, pid, b"")
    return fstatat(self._root, name, &st, 0) == 0 and st.st_uid == uid


cdef bint has_fds(FdScanner self, int32_t pid) noexcept nogil:
    cdef char name[64]
    cdef struct_stat st
    if not self._has_fd_counts:
        return True
    procfs_name(name, pid, b"fd")
    return fstatat(self._root, name, &st, 0) != 0 or st.st_size > 0


cdef int scan_all(FdScanner self, uint64_t inode, uint32_t uid, bint uid_known, int32_t *pid, int32_t *fd,
                    holders_t *out) noexcept nogil:
    cdef int count, first, i, at, stage, rc
    if not refill(self):
        return -EAGAIN
    count = pids_list(self)
    charge(self)
    if count < 0:
        return count
    first = newest(self, count)
    for stage in range(STAGE_UID if uid_known else STAGE_REST, STAGE_REST + 1):
        for i in range(count):
            at = first - i if first >= i else first - i + count
            pid[0] = self._pids[at]
            if i % CLOCK_EVERY == CLOCK_EVERY - 1 and not may_go_on(self):
                return -EAGAIN
            # A search that was resumed knows most of this already.
            if marked(self, self._visits, pid[0]) or stage == STAGE_UID and marked(self, self._other_users, pid[0]):
                continue
            if stage == STAGE_UID and not has_uid(self, pid[0], uid):
                mark(self, self._other_users, pid[0])
                continue
            mark(self, self._visits, pid[0])
            if not has_fds(self, pid[0]):
                continue
            rc = process_scan(self, pid[0], inode, fd, True)
            if rc == -EACCES:
                out.denied += 1
            elif rc != 0:
                out.stage = stage
                return rc
    return 0


cdef int scan_some(FdScanner self, uint64_t inode, const int32_t *pids, int n, int32_t *pid, int32_t *fd,
              holders_t *out) noexcept nogil:
    cdef int i, rc
    for i in range(n):
        pid[0] = pids[i]
        if pid[0] <= 0 or visited_before(self, pid[0]):
            continue
        rc = process_scan(self, pid[0], inode, fd, True)
        if rc == -EACCES:
            out.denied += 1
        elif rc != 0:
            return rc
    return 0


cdef int scan_in_order(FdScanner self, uint64_t inode, uint32_t uid, bint uid_known, const int32_t *likely_pids, int n,
                       int32_t *pid, int32_t *fd, holders_t *out) noexcept nogil:
    cdef int32_t recent_pids[RECENT]
    cdef int i, j, rc, known = 0
    out.stage = STAGE_RECENT
    # A process that opens and closes one socket after another gets the same descriptor each time.
    for i in range(RECENT):
        pid[0] = self._recent[i].pid
        fd[0] = self._recent[i].fd
        if pid[0] and holds_socket(self._root, pid[0], fd[0], inode):
            return 1
    for i in range(RECENT):
        for j in range(n):
            if likely_pids[j] == self._recent[i].pid:
                break
        else:
            if n:
                continue    # the caller's processes are more likely
        recent_pids[known] = self._recent[i].pid
        known += 1
    rc = scan_some(self, inode, recent_pids, known, pid, fd, out)
    if rc:
        return rc
    out.stage = STAGE_LIKELY
    rc = scan_some(self, inode, likely_pids, n, pid, fd, out)
    if rc:
        return rc
    return scan_all(self, inode, uid, uid_known, pid, fd, out)


cdef bint any_is_exiting(FdScanner self) noexcept nogil:
    # An exiting process gives up its descriptors before its sockets are closed: milliseconds before if it has many.
    cdef char buf[STAT_SIZE]
    cdef stat_t stat
    cdef bint found = False
    cdef int i
    for i in range(pids_list(self)):
        if i % CLOCK_EVERY == CLOCK_EVERY - 1 and not may_go_on(self):
            return True     # the budget is exhausted: assume that one is
        if stat_read(self._root, self._pids[i], buf, &stat) == 0 and stat.flags & PF_EXITING and stat.state != c'Z':
            found = True
            break
    charge(self)
    return found


@cython.final
@cython.auto_pickle(False)
cdef class FdScanner:
    """A search for the processes that hold a socket. One thread at a time.

    Scanning another user's processes needs CAP_SYS_PTRACE.

    If several processes hold a socket, the oldest comes first, since a socket is inherited from the process that opened
    it; pid 1 and systemd come last. Further holders are found if they inherited the socket. One that received it over a
    UNIX socket is found only if it is the sole holder, or by all_holders().

    Args:
        proc: Where procfs is mounted.
        budget: Seconds of processor time allowed per second; inf for no limit.
        negative_ttl: Seconds for which a search that found no holder is cached.
        burst: Seconds of processor time allowed without a pause.

    Raises:
        OSError: `proc` cannot be opened.
    """

    def __cinit__(self, proc="/proc", double budget=0.2, double negative_ttl=2.0, double burst=BURST):
        cdef bytes path = os.fsencode(proc)
        cdef struct_stat st
        self._root = -1
        self._rate = min(max(budget, 0.0), 1e6)
        self._burst = self._tokens = <int64_t>((burst if self._rate >= BURST else min(self._rate, burst)) * 1e9)
        self._refilled_at = monotonic_ns()
        self._negative_ttl = <int64_t>(negative_ttl * 1e9)
        self._known = <known_t *>calloc(KNOWN, sizeof(known_t))
        self._negatives = <negative_t *>calloc(NEGATIVES, sizeof(negative_t))
        self._visits = <visit_t *>calloc(VISITS, sizeof(visit_t))
        self._other_users = <visit_t *>calloc(VISITS, sizeof(visit_t))
        if self._known == NULL or self._negatives == NULL or self._visits == NULL or self._other_users == NULL:
            raise MemoryError
        self._root = procfs_open(path)
        if self._root < 0:
            raise OSError(-self._root, os.strerror(-self._root), proc)
        self._has_fd_counts = fstatat(self._root, b"self/fd", &st, 0) == 0 and st.st_size > 0

    def __dealloc__(self):
        free(self._known)
        free(self._negatives)
        free(self._visits)
        free(self._other_users)
        free(self._pids)
        if self._root >= 0:
            close(self._root)

    def close(self):
        """Close the descriptor. No search may be running."""
        if self._root >= 0:
            close(self._root)
        self._root = -1

    cdef int find(self, uint64_t inode, uint32_t uid, bint uid_known, const int32_t *likely_pids, int n,
                  holders_t *out) noexcept nogil:
        cdef known_t *known = &self._known[inode_slot(inode, KNOWN)]
        cdef negative_t *negative = &self._negatives[inode_slot(inode, NEGATIVES)]
        cdef int32_t pid, fd
        cdef int rc
        cdef bint resumed
        memset(out, 0, sizeof(out[0]))
        if inode == 0:
            return 0
        if known.inode == inode and holds_socket(self._root, known.pid, known.fd, inode):
            out.stage = STAGE_CACHE
            if known.exclusive:
                holder_add(out, known.pid, known.fd)
                return 1
            return holders_collect(self, inode, known.pid, known.fd, likely_pids, n, out)
        if negative.inode == inode and monotonic_ns() < negative.until:
            out.exiting = negative.exiting
            return negative.answer
        # A search that was cut short is resumed where it stopped. Only an uninterrupted search can show that no process
        # holds the socket.
        resumed = self._unfinished == inode
        if not resumed:
            self._search += 1
        self._charged_until = thread_cpu_ns()
        rc = scan_in_order(self, inode, uid, uid_known, likely_pids, n, &pid, &fd, out)
        self._unfinished = inode if rc == -EAGAIN else 0
        if rc == 0 and resumed:
            return -EAGAIN
        if rc > 0:
            return holders_collect(self, inode, pid, fd, likely_pids, n, out)
        out.stage = 0
        if rc == 0:
            rc = -EACCES if out.denied else 0
            out.exiting = any_is_exiting(self)
            negative.inode = inode
            negative.exiting = out.exiting
            negative.until = monotonic_ns() + self._negative_ttl
            negative.answer = rc
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
        out.stage = STAGE_REST if out.count else 0
        return -EACCES if out.denied and not out.count else out.count

    def holders(self, uint64_t inode, uid=None, likely_pids=()):
        """Find the processes that hold the socket with this inode.

        Args:
            inode: The socket's inode number.
            uid: The socket's user, whose processes are scanned before others.
            likely_pids: Processes to scan first, at most 256.

        Returns:
            A list of (pid, fd), the process to name first; [] if no process holds the socket.

        Raises:
            BlockingIOError: The budget is exhausted.
            PermissionError: No holder was found, but some processes could not be scanned.
        """
        cdef int32_t pids[256]
        cdef holders_t out
        cdef int n = 0
        for pid in likely_pids[:256]:
            pids[n] = pid
            n += 1
        return holders_list(self.find(inode, uid or 0, uid is not None, pids, n, &out), &out)

    def all_holders(self, uint64_t inode):
        """Find all processes that hold the socket, at most 32, in the form that holders() returns.

        Scans every process, which can take seconds.
        """
        cdef holders_t out
        return holders_list(self.find_all(inode, &out), &out)


cdef list holders_list(int rc, const holders_t *out):
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc))
    return [(out.at[i].pid, out.at[i].fd) for i in range(out.count)]
