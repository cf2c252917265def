"""The cache of process facts by pid and start time: bounded in number and bytes, least recently asked out first.

Every `get` checks the process against one read of /proc/PID/stat and one stat(2) of /proc/PID: the start time tells
another process under the same pid; name, effective ids and the addresses of code, stack and arguments, which execve
draws anew, tell another program in the same process. What that cannot see (a title written over the arguments, a
cgroup moved) is at most `max_age` old.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close

from .process cimport (PROCESS_ENDING, PROCESS_GONE, PROCESS_SAME, process_check, process_drop, process_object,
                       process_read, process_t, process_take)
from .procfs cimport procfs_monotonic_ns, procfs_open

import os


cdef inline entry_t **slot(ProcessCache self, int32_t pid) noexcept nogil:
    return &self._table[(<uint32_t>pid * <uint32_t>2654435761) >> 8 & self._mask]


cdef entry_t *entry_find(ProcessCache self, int32_t pid) noexcept nogil:
    cdef entry_t *entry = slot(self, pid)[0]
    while entry != NULL and entry.process.pid != pid:
        entry = entry.chain
    return entry


cdef void entry_unlink(ProcessCache self, entry_t *entry) noexcept nogil:
    if entry.newer != NULL:
        entry.newer.older = entry.older
    else:
        self._newest = entry.older
    if entry.older != NULL:
        entry.older.newer = entry.newer
    else:
        self._oldest = entry.newer


cdef void entry_link(ProcessCache self, entry_t *entry) noexcept nogil:
    entry.newer = NULL
    entry.older = self._newest
    if self._newest != NULL:
        self._newest.newer = entry
    else:
        self._oldest = entry
    self._newest = entry


cdef void entry_touch(ProcessCache self, entry_t *entry) noexcept nogil:
    if self._newest != entry:
        entry_unlink(self, entry)
        entry_link(self, entry)


cdef void entry_evict(ProcessCache self, entry_t *entry) noexcept nogil:
    cdef entry_t **p = slot(self, entry.process.pid)
    while p[0] != entry:
        p = &p[0].chain
    p[0] = entry.chain
    entry_unlink(self, entry)
    self._count -= 1
    self._bytes -= entry.process.bytes + sizeof(entry_t)
    process_drop(entry.process)
    free(entry)


cdef entry_t *entry_put(ProcessCache self, process_t *process, int64_t now) noexcept nogil:
    # Takes over the reference. NULL: no memory, and the reference stays the caller's.
    cdef entry_t *entry = entry_find(self, process.pid)
    cdef entry_t **head
    if entry != NULL:
        entry_touch(self, entry)
        self._bytes += process.bytes
        self._bytes -= entry.process.bytes
        process_drop(entry.process)
        entry.process = process
    else:
        while self._oldest != NULL and (
                self._count >= self._limit or self._bytes + process.bytes + sizeof(entry_t) > self._bytes_limit):
            entry_evict(self, self._oldest)
            self.evicted += 1
        entry = <entry_t *>calloc(1, sizeof(entry_t))
        if entry == NULL:
            return NULL
        entry.process = process
        head = slot(self, process.pid)
        entry.chain = head[0]
        head[0] = entry
        entry_link(self, entry)
        self._count += 1
        self._bytes += process.bytes + sizeof(entry_t)
    entry.read_at = entry.seen_at = now
    entry.gone_at = 0
    return entry


cdef process_t *cache_read(ProcessCache self, int32_t pid, int64_t now) noexcept nogil:
    cdef int error
    cdef process_t *process = process_read(self._root, pid, self._cmdline_limit, &error)
    self.reads += 1
    if process == NULL:
        return NULL
    if entry_put(self, process, now) == NULL:
        return process
    return process_take(process)


@cython.final
@cython.auto_pickle(False)
cdef class ProcessCache:
    """Facts about processes, read at most once as long as they stay true.

    `proc`: where procfs is mounted. `limit` processes of `bytes_limit` bytes together are kept; `cmdline_limit`: bytes kept
    of each command line. `max_age`: seconds until facts are read again although nothing seems to have changed; `linger`:
    seconds for which `recall` still knows a process that ended. One thread at a time. OSError if `proc` cannot be opened.
    """

    def __cinit__(self, proc="/proc", uint32_t limit=4096, uint64_t bytes_limit=8 << 20, uint32_t cmdline_limit=4096,
                  double max_age=1.0, double linger=10.0):
        cdef bytes path = os.fsencode(proc)
        cdef uint32_t size = 64
        self._root = -1
        if not 0 < limit <= 1 << 20 or not 0 < cmdline_limit <= 1 << 20:
            raise ValueError("limit and cmdline_limit must be between 1 and 1048576")
        self._limit, self._bytes_limit, self._cmdline_limit = limit, bytes_limit, cmdline_limit
        self._max_age, self._linger = <int64_t>(max_age * 1e9), <int64_t>(linger * 1e9)
        while size < limit:
            size *= 2
        self._table = <entry_t **>calloc(size, sizeof(entry_t *))
        if self._table == NULL:
            raise MemoryError
        self._mask = size - 1
        self._root = procfs_open(path)
        if self._root < 0:
            raise OSError(-self._root, os.strerror(-self._root), proc)

    def __dealloc__(self):
        cdef entry_t *entry = self._newest
        cdef entry_t *older
        while entry != NULL:
            older = entry.older
            process_drop(entry.process)
            free(entry)
            entry = older
        free(self._table)
        if self._root >= 0:
            close(self._root)

    cdef process_t *get(self, int32_t pid, int64_t fresh_ns) noexcept nogil:
        cdef int64_t now = procfs_monotonic_ns()
        cdef entry_t *entry = entry_find(self, pid)
        cdef int state
        if entry != NULL and not entry.gone_at:
            if now - entry.seen_at < fresh_ns:
                entry_touch(self, entry)
                self.hits += 1
                return process_take(entry.process)
            state = process_check(self._root, entry.process)
            if state < 0:
                return NULL
            if state == PROCESS_ENDING or (state == PROCESS_SAME and now - entry.read_at < self._max_age):
                entry.seen_at = now
                entry_touch(self, entry)
                self.hits += 1
                return process_take(entry.process)
            if state == PROCESS_GONE:
                entry.gone_at = now
        return cache_read(self, pid, now)

    cdef process_t *recall(self, int32_t pid, uint64_t start) noexcept nogil:
        cdef entry_t *entry = entry_find(self, pid)
        if entry == NULL or (start and entry.process.start != start):
            return NULL
        if entry.gone_at and procfs_monotonic_ns() - entry.gone_at > self._linger:
            entry_evict(self, entry)
            return NULL
        entry_touch(self, entry)
        return process_take(entry.process)

    cdef int remember(self, int32_t pid) noexcept nogil:
        cdef process_t *process = cache_read(self, pid, procfs_monotonic_ns())
        process_drop(process)
        return process != NULL

    cdef void forget(self, int32_t pid) noexcept nogil:
        cdef entry_t *entry = entry_find(self, pid)
        if entry != NULL and not entry.gone_at:
            entry.gone_at = procfs_monotonic_ns()

    def lookup(self, int32_t pid, double fresh=0.0):
        """The living process under `pid`, a `Process`, or None. What was checked within `fresh` seconds is not again."""
        return process_object(self.get(pid, <int64_t>(fresh * 1e9)))

    def last_known(self, int32_t pid, uint64_t start_ticks=0):
        """The last process known under `pid`, also if it ended less than `linger` seconds ago; None. Reads nothing."""
        return process_object(self.recall(pid, start_ticks))

    def started(self, int32_t pid):
        """To be told of fork and execve: reads the process anew. True if there is one."""
        return bool(self.remember(pid))

    def ended(self, int32_t pid):
        """To be told of exit: from now on only `last_known` gives it."""
        self.forget(pid)

    def __len__(self):
        return self._count

    @property
    def bytes(self):
        """Memory the kept facts take, int."""
        return self._bytes
