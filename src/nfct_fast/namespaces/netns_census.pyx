"""Find the network namespaces of processes: of all processes, or of those that were started recently.

Looking at all processes takes 3 us each. But the kernel assigns process ids in sequence, and /proc/loadavg shows the
last one. So the new processes are those with ids since the previous look: if none was started, there is almost nothing
to do. Most processes that enter a namespace do so soon after their start, so each new process is looked at three times
within half a second.
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
    RANGE_MAX = 20000           # most process ids in one range; beyond that, looking at all processes is as fast
    STRIDE = 64                 # processes between two readings of the clock


cdef int64_t until_next(int looks) noexcept nogil:
    """Return the ns until the next look at a range; 0: there is none."""
    return 40_000_000 if looks == 1 else 400_000_000 if looks == 2 else 0


@cython.final
@cython.auto_pickle(False)
cdef class NetnsCensus:
    """A census of the network namespaces that processes are in. One thread at a time.

    Other users' processes can be inspected only with CAP_SYS_PTRACE.

    Args:
        proc: Where /proc is mounted.

    Raises:
        OSError: `proc` cannot be opened.
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
        """Make all() return early. Any thread may call this."""
        self.stopping = True

    def close(self) -> None:
        """Close the descriptor, while no other method is running. Closing twice is harmless."""
        if self.root >= 0:
            close(self.root)
        self.root = -1

    cdef int64_t _last_pid(self) noexcept nogil:
        """Return the process id that was assigned last; -1 if /proc/loadavg cannot be read."""
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
        slot = &self.seen[<uint64_t>st.st_ino & (SEEN_SLOTS - 1)]
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

    cdef void _scan(self, pid_range_t *range_, int64_t until) noexcept nogil:
        cdef int32_t pid = range_.begin
        while pid != range_.end and self.count < FOUND_MAX:
            # After the largest process id, the kernel starts over from low ones.
            pid = pid + 1 if pid < self.pid_max else 1
            self._look_up(pid)
            if pid % STRIDE == 0 and monotonic_ns() > until:
                break
        if pid != range_.end:
            self.is_overtaken = True

    def recent(self, double budget=0.005) -> dict:
        """Return the namespaces of recently started processes, as {inode: pid}. Never blocks.

        Takes at most `budget` seconds. If there are more processes than that allows, `overtaken` is true from then on.
        """
        cdef int64_t now = monotonic_ns()
        cdef int64_t until = now + <int64_t>(budget * 1e9)
        cdef int64_t given, pause
        cdef pid_range_t *range_
        cdef int i
        with nogil:
            memset(self.seen, 0, sizeof(self.seen))
            given = self._last_pid()
            if given < 0:
                self.is_overtaken = True
            elif given != self.last_pid:
                range_ = &self.ranges[self.next_range]
                self.next_range = (self.next_range + 1) % 64
                self.is_overtaken = self.is_overtaken or range_.look_at != 0
                range_.begin, range_.end, range_.looks = self.last_pid, <int32_t>given, 0
                range_.look_at = now
                self.last_pid = <int32_t>given
                if (range_.end - range_.begin + self.pid_max) % self.pid_max > RANGE_MAX:
                    self.is_overtaken = True
                    range_.look_at = 0
            for i in range(64):
                range_ = &self.ranges[i]
                if range_.look_at and range_.look_at <= now:
                    self._scan(range_, until)
                    range_.looks += 1
                    pause = until_next(range_.looks)
                    range_.look_at = now + pause if pause else 0
        return self._take_found()

    @property
    def overtaken(self) -> bool:
        """Whether more processes were started since all() than recent() could look at."""
        return self.is_overtaken

    def all(self) -> dict:
        """Return the namespaces of all processes, as {inode: pid}; None if stop() was called or /proc cannot be listed.

        Blocks for 3 us per process.
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
