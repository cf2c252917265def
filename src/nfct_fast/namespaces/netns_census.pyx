"""Which network namespaces processes are in: all, and those that came lately.

To look at all processes takes 3 us each. But the kernel gives process ids in turn and tells the last one (loadavg): what began since is
in between, and next to nothing where nothing began. Who enters a namespace does so when he has just begun, most of the time:
so each new process is looked at more than once.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset
from posix.stat cimport struct_stat
from posix.unistd cimport close
from nfct_fast.kernel.fstatat cimport fstatat
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.procfs cimport (numbers_close, numbers_next, numbers_open, numbers_t, procfs_decimal, procfs_name,
                      procfs_open, procfs_read)

import os

cdef enum:
    MOST_AT_ONCE = 20000        # process ids in one span: to look at all processes is no more
    STRIDE = 64                 # looks between two at the clock


cdef int64_t until_next(int looks) noexcept nogil:
    """ns from one look at a span to the next; 0: that was the last."""
    return 40_000_000 if looks == 1 else 400_000_000 if looks == 2 else 0


@cython.final
@cython.auto_pickle(False)
cdef class NetnsCensus:
    """proc: where procfs is mounted. One thread at a time; OSError if it cannot be opened.

    Processes of others need CAP_SYS_PTRACE to be seen.
    """

    def __cinit__(self, str proc="/proc"):
        cdef bytes path = os.fsencode(proc)
        self.root = procfs_open(path)
        if self.root < 0:
            raise OSError(-self.root, os.strerror(-self.root), proc)
        self.proc = proc
        with open(f"{proc}/sys/kernel/pid_max") as file:
            self.pid_max = int(file.read())
        self.last_pid = <int32_t>self._last_pid()

    def __dealloc__(self):
        if self.root >= 0:
            close(self.root)

    def stop(self) -> None:
        """Have all() return before its end; from any thread."""
        self.stopping = True

    def close(self) -> None:
        """Close the descriptor; nobody may be looking. Closing twice is harmless."""
        if self.root >= 0:
            close(self.root)
        self.root = -1

    cdef int64_t _last_pid(self) noexcept nogil:
        """The process id given last; -1 if it is not told."""
        cdef char buf[128]
        cdef const char *p
        cdef uint64_t last = 0
        cdef ssize_t got = procfs_read(self.root, b"loadavg", buf, sizeof(buf))
        if got <= 0:
            return -1
        p = buf + got - 1
        while p > buf and p[0] != c' ':
            p -= 1
        p += 1
        return <int64_t>last if procfs_decimal(&p, buf + got, &last) > 0 and last <= 0x7fffffff else -1

    cdef void _look_up(self, int32_t pid) noexcept nogil:
        cdef char name[64]
        cdef struct_stat st
        cdef uint64_t *slot
        procfs_name(name, pid, b"ns/net")
        if fstatat(self.root, name, &st, 0) < 0:
            return
        slot = &self.seen[<uint64_t>st.st_ino & (SLOTS - 1)]
        if slot[0] == st.st_ino:
            return
        slot[0] = st.st_ino
        self.pids[self.count] = pid
        self.inodes[self.count] = st.st_ino
        self.count += 1

    cdef dict _take_found(self):
        cdef int i
        found = {self.inodes[i]: self.pids[i] for i in range(self.count)}
        self.count = 0
        return found

    cdef void _scan(self, pid_range_t *span, int64_t until) noexcept nogil:
        cdef int32_t pid = span.begin
        while pid != span.end and self.count < FOUND_MAX:
            # Where the largest number was given, it begins again at the small ones.
            pid = pid + 1 if pid < self.pid_max else 1
            self._look_up(pid)
            if pid % STRIDE == 0 and monotonic_ns() > until:
                break
        if pid != span.end:
            self.is_overtaken = True

    def recent(self, double budget=0.005) -> dict:
        """Namespaces of processes that began lately, as {inode: pid}, in no more than `budget` seconds; not blocking.

        `overtaken` is true from then on if there were more than could be looked at.
        """
        cdef int64_t now = monotonic_ns()
        cdef int64_t until = now + <int64_t>(budget * 1e9)
        cdef int64_t given, pause
        cdef pid_range_t *span
        cdef int i
        with nogil:
            memset(self.seen, 0, sizeof(self.seen))
            given = self._last_pid()
            if given < 0:
                self.is_overtaken = True
            elif given != self.last_pid:
                span = &self.ranges[self.next_range]
                self.next_range = (self.next_range + 1) % 64
                self.is_overtaken = self.is_overtaken or span.at != 0
                span.begin, span.end, span.looks = self.last_pid, <int32_t>given, 0
                span.at = now
                self.last_pid = <int32_t>given
                if (span.end - span.begin + self.pid_max) % self.pid_max > MOST_AT_ONCE:
                    self.is_overtaken = True
                    span.at = 0
            for i in range(64):
                span = &self.ranges[i]
                if span.at and span.at <= now:
                    self._scan(span, until)
                    span.looks += 1
                    pause = until_next(span.looks)
                    span.at = now + pause if pause else 0
        return self._take_found()

    @property
    def overtaken(self) -> bool:
        """Since all(), more processes have begun than recent() could look at."""
        return self.is_overtaken

    def all(self) -> dict:
        """Namespaces of all processes, as {inode: pid}; None if stop() came before the end, or they cannot be listed.

        Blocks for 3 us a process.
        """
        cdef numbers_t numbers
        cdef int rc, i
        found = {}
        self.is_overtaken = False
        memset(self.seen, 0, sizeof(self.seen))
        rc = numbers_open(&numbers, self.root, b".")
        if rc < 0:
            return None
        try:
            while not self.stopping:
                with nogil:
                    rc = numbers_next(&numbers)
                    for i in range(max(rc, 0)):
                        self._look_up(numbers.at[i])
                for inode, pid in self._take_found().items():
                    found.setdefault(inode, pid)
                if rc <= 0:
                    break
        finally:
            numbers_close(&numbers)
        return found if rc == 0 and not self.stopping else None
