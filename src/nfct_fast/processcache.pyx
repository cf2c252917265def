"""The cache of process facts by pid and start time: bounded in number and bytes, least recently asked out first.

Every `get` checks the process against one read of /proc/PID/stat and one stat(2) of /proc/PID: the start time tells
another process under the same pid; name, effective ids and the addresses of code, stack and arguments, which execve
draws anew, tell another program in the same process. What that cannot see (a title written over the arguments, a
cgroup moved) is at most `max_age` old.

While fork, exec and exit are being told, a pid has a history. An event happened before it is heard, so facts read
from /proc may be those of an event not heard yet: they count once all events up to the reading have been taken in.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec
from posix.unistd cimport _SC_CLK_TCK, close, sysconf

from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock
from procfs_calls cimport CLOCK_BOOTTIME
from sys_socket cimport eventfd_write

from .mutex cimport mutex_make
from .process cimport (PROCESS_ENDING, PROCESS_EXE, PROCESS_GONE, PROCESS_SAME, process_check, process_drop, process_object,
                       process_read, process_t, process_take)
from .processtable cimport (entries_free, entries_make, entries_trim, entry_add, entry_before, entry_evict, entry_find,
                            entry_replace, entry_t, entry_touch)
from .procfs cimport procfs_monotonic_ns, procfs_open

import os

cdef enum:
    POKED_NS = 1000000       # until a poke is answered


cdef void cache_lock(ProcessCache self) noexcept nogil:
    pthread_mutex_lock(&self._mutex)


cdef void cache_unlock(ProcessCache self) noexcept nogil:
    pthread_mutex_unlock(&self._mutex)


cdef inline int64_t boot_offset() noexcept nogil:
    cdef timespec boot, mono
    clock_gettime(CLOCK_BOOTTIME, &boot)
    clock_gettime(CLOCK_MONOTONIC, &mono)
    return <int64_t>(boot.tv_sec - mono.tv_sec) * 1000000000 + (boot.tv_nsec - mono.tv_nsec)


cdef uint64_t cache_ticks(ProcessCache self, int64_t when) noexcept nogil:
    return <uint64_t>((when + boot_offset()) // self._tick)


cdef int64_t cache_basis(ProcessCache self, const process_t *process, int64_t read_to) noexcept nogil:
    # The start is known to a tick only, and may have been as late as its end.
    cdef int64_t since
    if self._watched == 0:
        return read_to
    since = <int64_t>(process.start + 1) * self._tick - boot_offset()
    return max(since, self._watched, self._entries.forgotten)


cdef bint is_overtaken(ProcessCache self, const entry_t *entry, const process_t *process, int64_t begun) noexcept nogil:
    # A reading that began before what was told last of the process may show what it was until then: whoever read it was
    # kept from saying so.
    if self._watched == 0 or entry == NULL or entry.soft:
        return False
    return begun < entry.until if entry.until else begun < entry.since and entry.process.image != process.image


cdef void cache_store(ProcessCache self, process_t *process, int64_t begun) noexcept nogil:
    # Keeps one more reference if it can. With the lock held.
    cdef entry_t *entry = entry_find(&self._entries, process.pid)
    cdef int64_t now = procfs_monotonic_ns()
    cdef int64_t since
    if is_overtaken(self, entry, process, begun):
        return
    if entry != NULL and entry.until == 0 and entry.gone_at == 0 and (
            entry.process.start == process.start
            or (entry.source != process.pid and entry.process.start == process.start + 1)):
        if entry.process.image == process.image or entry.process.image == 0 or self._watched == 0:
            # Facts that were unknown or merely old: the time they count from stays.
            if self._watched == 0 and entry.process.image != process.image:
                entry.since = now
            # The same image then and now: nothing lies between, and the reading counts from the earlier one on.
            if entry.process.image != process.image:
                entry.read_from, entry.read_to = begun, now
            entry_replace(&self._entries, entry, process_take(process))
            entry_touch(&self._entries, entry)
            entry.source = process.pid
            entry.read_at, entry.seen_at = now, now
            entries_trim(&self._entries, 0)
            return
        # An event that was not heard yet lies between.
        entry.until, entry.gone_at, entry.soft = max(entry.seen_at, entry.since), now, True
        since = now
    else:
        since = cache_basis(self, process, now)
        if entry != NULL and self._watched == 0:
            entry_evict(&self._entries, entry)    # without events nothing would ever close it
        elif entry != NULL and entry.until == 0:
            entry.until, entry.soft = max(entry.seen_at, entry.since), True
            entry.gone_at = entry.gone_at or now
        if entry != NULL and self._watched and since < entry.until:
            since = entry.until
    entry = entry_add(&self._entries, process_take(process), since)
    if entry != NULL:
        entry.read_from, entry.read_to, entry.read_at, entry.seen_at = begun, now, now, now


cdef process_t *cache_read(ProcessCache self, int32_t pid, int64_t begun) noexcept nogil:
    cdef int error
    cdef process_t *process = process_read(self._root, pid, self._cmdline_limit, &error)
    cache_lock(self)
    self.reads += 1
    # In the midst of execve it is neither one program nor the other.
    if process != NULL and not (self._watched and process.cmdline.size == 0 and process.has & PROCESS_EXE):
        cache_store(self, process, begun)
    cache_unlock(self)
    return process


cdef bint entry_is_closed(ProcessCache self, int32_t pid) noexcept nogil:
    cdef entry_t *entry = entry_find(&self._entries, pid)
    return entry != NULL and entry.until != 0 and not entry.soft


cdef void settle(ProcessCache self, int64_t when, int32_t pid, int64_t end) noexcept nogil:
    # Until all events before `when` are in, or the process `pid` was told of again, or until `end`. The thread that waits
    # for events is woken: if there are none, it says so.
    cdef timespec pause
    cdef bint done
    cdef bint asked = False
    pause.tv_sec, pause.tv_nsec = 0, 20000
    while True:
        cache_lock(self)
        done = self._watched == 0 or self._horizon >= when or self._poke < 0 or pid and entry_is_closed(self, pid)
        if not done and not asked and procfs_monotonic_ns() >= when:
            eventfd_write(self._poke, 1)
            asked = True
            end = max(end, procfs_monotonic_ns() + POKED_NS)    # on a busy machine `end` may have passed meanwhile
        cache_unlock(self)
        if done or procfs_monotonic_ns() >= end:
            return
        nanosleep(&pause, NULL)


cdef bint entry_settled(ProcessCache self, const entry_t *entry, int64_t when) noexcept nogil:
    # An event after the reading has closed it, or none came: what was read is what ran since `since`.
    if entry.until != 0 and not entry.soft:
        return True
    # It ran its own code at `when`: no execve was under way, and all there was until then has been told.
    if entry.source == entry.process.pid and entry.read_to <= when <= self._horizon:
        return True
    if entry.source != entry.process.pid and entry.read_to < entry.since:
        return True    # a parent that forks is not in the midst of execve
    return self._horizon >= entry.read_to + EXEC_SHOWN_EARLY


cdef bint entry_is_open(ProcessCache self, int32_t pid, const process_t *process) noexcept nogil:
    cdef entry_t *entry
    cdef bint result
    cache_lock(self)
    entry = entry_find(&self._entries, pid)
    result = entry != NULL and entry.process == process and entry.until == 0
    cache_unlock(self)
    return result


@cython.final
@cython.auto_pickle(False)
cdef class ProcessCache:
    """Facts about processes, read at most once as long as they stay true.

    `proc`: where procfs is mounted. `limit` processes of `bytes_limit` bytes together are kept; `cmdline_limit`: bytes kept
    of each command line. `max_age`: seconds until facts are read again although nothing seems to have changed; `linger`:
    seconds for which a process that ended is still known. Any thread may use it. OSError if `proc` cannot be opened.
    """

    def __cinit__(self, proc="/proc", uint32_t limit=4096, uint64_t bytes_limit=8 << 20, uint32_t cmdline_limit=4096,
                  double max_age=1.0, double linger=10.0):
        cdef bytes path = os.fsencode(proc)
        self._root = self._poke = -1
        if not mutex_make(&self._mutex):
            raise MemoryError
        self._mutex_made = True
        self._tick = 1000000000 // sysconf(_SC_CLK_TCK)
        if not 0 < limit <= 1 << 20 or not 0 < cmdline_limit <= 1 << 20:
            raise ValueError("limit and cmdline_limit must be between 1 and 1048576")
        self._cmdline_limit = cmdline_limit
        self._max_age, self._linger = <int64_t>(max_age * 1e9), <int64_t>(linger * 1e9)
        if not entries_make(&self._entries, limit, bytes_limit):
            raise MemoryError
        self._root = procfs_open(path)
        if self._root < 0:
            raise OSError(-self._root, os.strerror(-self._root), proc)

    def __dealloc__(self):
        entries_free(&self._entries)
        if self._root >= 0:
            close(self._root)
        if self._mutex_made:
            pthread_mutex_destroy(&self._mutex)

    cdef process_t *get(self, int32_t pid, int64_t fresh_ns) noexcept nogil:
        cdef int64_t now = procfs_monotonic_ns()
        cdef process_t *process
        cdef entry_t *entry
        cdef int64_t read_at
        cdef bint ended, exited, fresh
        cdef int state
        cache_lock(self)
        entry = entry_find(&self._entries, pid)
        if entry == NULL:
            cache_unlock(self)
            return cache_read(self, pid, now)
        process = process_take(entry.process)
        read_at = entry.read_at
        ended, exited = entry.gone_at != 0, entry.exited
        fresh = not ended and now - entry.seen_at < fresh_ns
        if fresh:
            entry_touch(&self._entries, entry)
            self.hits += 1
        cache_unlock(self)
        if fresh:
            return process
        state = process_check(self._root, process)
        if state < 0:
            process_drop(process)
            return NULL
        if (state == PROCESS_ENDING and (exited or not ended)) or (
                state == PROCESS_SAME and not ended and now - read_at < self._max_age):
            cache_lock(self)
            entry = entry_find(&self._entries, pid)
            if entry != NULL and entry.process == process:
                entry.seen_at = now
                entry_touch(&self._entries, entry)
            self.hits += 1
            cache_unlock(self)
            return process
        if state == PROCESS_GONE and not ended:
            cache_lock(self)
            entry = entry_find(&self._entries, pid)
            if entry != NULL and entry.process == process and entry.gone_at == 0:
                entry.gone_at = now
            cache_unlock(self)
        process_drop(process)
        return cache_read(self, pid, now)

    cdef process_t *recall(self, int32_t pid, uint64_t start) noexcept nogil:
        cdef process_t *process = NULL
        cdef entry_t *entry
        cache_lock(self)
        entry = entry_find(&self._entries, pid)
        while entry != NULL and start and entry.process.start != start:
            entry = entry_before(entry)
        if entry != NULL and entry.gone_at and procfs_monotonic_ns() - entry.gone_at > self._linger:
            entry_evict(&self._entries, entry)
        elif entry != NULL:
            entry_touch(&self._entries, entry)
            process = process_take(entry.process)
        cache_unlock(self)
        return process

    cdef process_t *recall_at(self, int32_t pid, int64_t when) noexcept nogil:
        cdef recall_t recall
        return self.recall_span(pid, when, &recall)

    cdef process_t *recall_span(self, int32_t pid, int64_t when, recall_t *recall) noexcept nogil:
        cdef int64_t now = procfs_monotonic_ns()
        cdef process_t *process = NULL
        cdef entry_t *entry
        cdef bint sure = False
        cdef bint exited = False
        cdef int state
        cache_lock(self)
        entry = entry_find(&self._entries, pid)
        # A first thread that exited may have left others: the last entry is looked at beyond its end.
        if entry == NULL or not entry.exited or when < entry.until or self._horizon < when:
            while entry != NULL and not (entry.since <= when and (entry.until == 0 or when < entry.until)):
                entry = entry_before(entry)
        if entry != NULL and entry.gone_at and procfs_monotonic_ns() - entry.gone_at > self._linger:
            entry_evict(&self._entries, entry)
            entry = NULL
        if entry != NULL and (self._watched == 0 or entry_settled(self, entry, when)):
            if entry.until != 0:
                sure = when < entry.until
                recall.to = entry.until - 1
            else:
                recall.to = self._horizon if self._watched != 0 else entry.seen_at
                sure = when <= recall.to
            exited = entry.exited
            recall.since = entry.since
            recall.aged = entry.until == 0 and now - entry.read_at >= self._max_age
            recall.inherited = entry.source != pid
            process = process_take(entry.process)
            entry_touch(&self._entries, entry)
        cache_unlock(self)
        if process == NULL or sure:
            return process
        state = process_check(self._root, process)
        recall.to = max(when, now) if state == PROCESS_SAME else when
        if (state == PROCESS_ENDING and exited) or (state == PROCESS_SAME and entry_is_open(self, pid, process)):
            return process
        process_drop(process)
        return NULL

    cdef process_t *at(self, int32_t pid, int64_t when, int64_t patience) noexcept nogil:
        cdef int64_t begun = procfs_monotonic_ns()
        cdef int64_t end = begun + patience
        cdef int64_t until = 0
        cdef process_t *process = self.recall_at(pid, when)
        cdef entry_t *entry
        if process != NULL or self._watched == 0:
            return process
        settle(self, when, 0, end)
        process = self.recall_at(pid, when)
        if process != NULL:
            return process
        cache_lock(self)
        entry = entry_find(&self._entries, pid)
        if entry != NULL and entry.until == 0:
            until = entry.read_to + EXEC_SHOWN_EARLY
        cache_unlock(self)
        if until == 0:
            # Not known, or known only as one that has ended: somebody else may have the pid by now.
            process_drop(cache_read(self, pid, begun))
            until = procfs_monotonic_ns() + EXEC_SHOWN_EARLY
        settle(self, until, pid, max(end, until))
        return self.recall_at(pid, when)

    cdef int remember(self, int32_t pid) noexcept nogil:
        cdef process_t *process = cache_read(self, pid, procfs_monotonic_ns())
        process_drop(process)
        return process != NULL

    cdef void forget(self, int32_t pid) noexcept nogil:
        cdef entry_t *entry
        cache_lock(self)
        entry = entry_find(&self._entries, pid)
        if entry != NULL and not entry.gone_at:
            entry.gone_at = procfs_monotonic_ns()
        cache_unlock(self)

    def lookup(self, int32_t pid, double fresh=0.0):
        """The living process under `pid`, a `Process`, or None. What was checked within `fresh` seconds is not again."""
        return process_object(self.get(pid, <int64_t>(fresh * 1e9)))

    def last_known(self, int32_t pid, uint64_t start_ticks=0):
        """The last process known under `pid`, also if it ended less than `linger` seconds ago; None. Reads nothing."""
        return process_object(self.recall(pid, start_ticks))

    def known_at(self, int32_t pid, int64_t when, double patience=0.0):
        """Which program ran under `pid` at `when`, CLOCK_MONOTONIC ns: a `Process`, or None if that is not certain.

        With `patience`, seconds, waits so long for events not heard yet, and reads /proc if nothing is known.
        """
        cdef process_t *found
        cdef int64_t wait = <int64_t>(patience * 1e9)
        with nogil:
            found = self.at(pid, when, wait) if wait else self.recall_at(pid, when)
        return process_object(found)

    def started(self, int32_t pid):
        """To be told of fork and execve: reads the process anew. True if there is one."""
        return bool(self.remember(pid))

    def ended(self, int32_t pid):
        """To be told of exit: from now on only `last_known` gives it."""
        self.forget(pid)

    def __len__(self):
        return self._entries.count

    @property
    def evicted(self):
        """How often one was pushed out for want of room, int."""
        return self._entries.evicted

    @property
    def bytes(self):
        """Memory the kept facts take, int."""
        return self._entries.bytes
