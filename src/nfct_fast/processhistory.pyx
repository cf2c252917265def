"""What fork, exec and exit change in what is known of processes.

A child is what its parent was until it calls execve, so nothing need be read for it. After execve /proc is read at
once, and if the process has ended by then, only what execve leaves alone is still known: a guessed command line would
be a wrong one. Events are late, and facts may have been read after an event that is only heard now: the times of
reading decide which side of the event they belong to, and where they cannot, the facts are dropped.
"""
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memchr, memset

from .process cimport (PROCESS_COMM, PROCESS_EXE, PROCESS_IDS, PROCESS_PPID, process_build,
                       process_drop, process_read, process_t, process_take)
from .processcache cimport EXEC_SHOWN_EARLY, ProcessCache, cache_basis, cache_lock, cache_ticks, cache_unlock
from .processtable cimport entry_add, entry_before, entry_evict, entry_find, entry_replace, entry_t
from .procfs cimport procfs_monotonic_ns
from .readings cimport Readings


cdef inline void close_entry(entry_t *entry, int64_t when) noexcept nogil:
    if entry.until == 0:
        entry.until = max(when, entry.since)
        entry.gone_at = procfs_monotonic_ns()


cdef void end_entry(entry_t *entry, int64_t when) noexcept nogil:
    # What a reading closed ended with the event that is heard now, and not when it was last looked at.
    if entry != NULL and entry.soft:
        entry.until, entry.soft = max(when, entry.since), False
    elif entry != NULL:
        close_entry(entry, when)


cdef inline void stamp(entry_t *entry, int32_t source, int64_t begun, int64_t ended) noexcept nogil:
    entry.source = source
    entry.read_from, entry.read_to, entry.read_at = begun, ended, ended


cdef void disinherit(ProcessCache cache, int32_t source, int64_t when) noexcept nogil:
    # Children that were given what /proc showed of their parent after it had become something else.
    cdef entry_t *entry = cache._entries.oldest
    cdef entry_t *next
    if when - EXEC_SHOWN_EARLY > cache._donated:
        return
    while entry != NULL:
        next = entry.newer
        if (entry.source == source and entry.process.pid != source and entry.read_to >= entry.since
                and entry.read_to >= when - EXEC_SHOWN_EARLY and (entry.since < when or entry.read_from <= when)):
            entry_evict(&cache._entries, entry)
        entry = next


cdef entry_t *later_reading(ProcessCache cache, int32_t pid, int64_t when) noexcept nogil:
    """The first entry of `pid` that was read after `when`, moved to begin there, or NULL; what was before ends there."""
    cdef entry_t *entry
    cdef entry_t *before
    cdef entry_t *later = NULL
    disinherit(cache, pid, when)
    entry = entry_find(&cache._entries, pid)
    while entry != NULL and (entry.until == 0 or entry.soft) and entry.source == pid and entry.read_to >= when:
        before = entry_before(entry)
        if entry.read_from > when:
            later = entry
        else:
            entry_evict(&cache._entries, entry)    # read while it changed: it may be either
        entry = before
    end_entry(entry, when)
    if later != NULL:
        later.since = when
    return later


cdef void read_parent(ProcessCache cache, int32_t ppid) noexcept nogil:
    # Not known yet, or so long ago that it may have moved to another cgroup or namespace.
    cdef int error
    cdef int64_t begun = procfs_monotonic_ns()
    cdef int64_t ended
    cdef process_t *process = process_read(cache._root, ppid, cache._cmdline_limit, &error)
    cdef entry_t *entry
    ended = procfs_monotonic_ns()
    cache_lock(cache)
    cache.reads += 1
    entry = entry_find(&cache._entries, ppid)
    if entry != NULL and entry.until == 0:
        entry.read_at = ended
        if process != NULL and process.image == entry.process.image and process.start == entry.process.start:
            # The same image before and after: nothing lies between, and the reading counts from the earlier one on.
            entry_replace(&cache._entries, entry, process_take(process))
    elif process != NULL and process.pid == ppid and not (process.has & PROCESS_EXE and process.cmdline.size == 0):
        entry = entry_add(&cache._entries, process_take(process), cache_basis(cache, process, ended))
        if entry != NULL:
            stamp(entry, ppid, begun, ended)
            entry.seen_at = ended
    cache_unlock(cache)
    process_drop(process)


cdef void history_forked(ProcessCache cache, int32_t ppid, int32_t pid, int64_t when) noexcept nogil:
    cdef process_t facts
    cdef process_t *child
    cdef entry_t *entry
    cdef entry_t *parent
    cdef bint stale
    cache_lock(cache)
    parent = entry_find(&cache._entries, ppid)
    stale = parent == NULL or parent.until != 0 or procfs_monotonic_ns() - parent.read_at > cache._max_age
    cache_unlock(cache)
    if stale:
        read_parent(cache, ppid)
    cache_lock(cache)
    if later_reading(cache, pid, when) == NULL:
        memset(&facts, 0, sizeof(facts))
        parent = entry_find(&cache._entries, ppid)
        if parent != NULL and not (parent.until == 0 and parent.since <= when):
            parent = NULL
        if parent != NULL:
            facts = parent.process[0]
        facts.pid = pid
        facts.ppid = ppid
        facts.has |= PROCESS_PPID
        # The kernel took the start time some microseconds before: the tick may be the one before.
        facts.start = cache_ticks(cache, when)
        child = process_build(&facts)
        # The bounds may push out the parent, whose times are still wanted.
        entry = NULL
        if child != NULL and parent != NULL:
            stale = parent.read_to >= when
            entry = inherit(cache, child, when, parent.source, parent.read_from, parent.read_to)
            if stale and entry != NULL and entry.read_to > cache._donated:
                cache._donated = entry.read_to
        elif child != NULL:
            inherit(cache, child, when, pid, when, when)
    cache_unlock(cache)


cdef entry_t *inherit(ProcessCache cache, process_t *child, int64_t when, int32_t source, int64_t begun,
                      int64_t ended) noexcept nogil:
    cdef entry_t *entry = entry_add(&cache._entries, child, when)
    if entry != NULL:
        stamp(entry, source, begun, ended)
    return entry


cdef process_t *stub(ProcessCache cache, const process_t *old, int32_t pid, int64_t when) noexcept nogil:
    # execve keeps pid, parent, real ids and start; of the rest nothing is certain any more.
    cdef process_t facts
    memset(&facts, 0, sizeof(facts))
    facts.pid = pid
    facts.start = old.start if old != NULL else 0
    if old != NULL:
        facts.has = old.has & (PROCESS_PPID | PROCESS_IDS)
        facts.ppid, facts.uid, facts.gid = old.ppid, old.uid, old.gid
    return process_build(&facts)


cdef void withdraw(ProcessCache cache, int32_t pid, const process_t *old) noexcept nogil:
    cdef entry_t *entry = entry_find(&cache._entries, pid)
    while entry != NULL and entry.process != old:
        entry = entry_before(entry)
    if entry != NULL:
        entry_evict(&cache._entries, entry)


cdef int history_executed(ProcessCache cache, Readings readings, int32_t pid, int64_t when) noexcept nogil:
    cdef process_t *old = NULL
    cdef process_t *process
    cdef entry_t *entry
    cdef int64_t begun, ended
    cdef int error, known = 1
    cdef bint doubtful = False
    cache_lock(cache)
    entry = entry_find(&cache._entries, pid)
    if entry != NULL and entry.until == 0:
        old = process_take(entry.process)
        doubtful = entry.source == pid and entry.read_to > when - EXEC_SHOWN_EARLY
    entry = later_reading(cache, pid, when)
    cache_unlock(cache)
    process = NULL
    if entry == NULL:
        process = readings.take(pid, when, &begun, &ended)
        if process == NULL:
            begun = procfs_monotonic_ns()
            process = process_read(cache._root, pid, cache._cmdline_limit, &error)
            ended = procfs_monotonic_ns()
        if process != NULL and (process.pid != pid or process.start > cache_ticks(cache, when)
                                or process.cmdline.size == 0):
            # The pid has been used again; or it is exiting, or in the next execve, and has no memory to show.
            process_drop(process)
            process = NULL
        known = process != NULL
        cache_lock(cache)
        cache.reads += 1
        entry = later_reading(cache, pid, when)    # somebody may have asked meanwhile
        # Was it what is now that was read before? Then nobody knows what was before.
        if old != NULL and (doubtful if process == NULL else process.image == old.image):
            withdraw(cache, pid, old)
        if entry == NULL:
            if process == NULL:
                process = stub(cache, old, pid, when)
                begun = ended = when    # nothing was read: an execve not heard yet may have been read better
            if process != NULL:
                entry = entry_add(&cache._entries, process_take(process), when)
                if entry != NULL:
                    stamp(entry, pid, begun, ended)
        cache_unlock(cache)
    process_drop(process)
    process_drop(old)
    return known


cdef void history_altered(ProcessCache cache, int32_t pid, int64_t when, int what, uint32_t id,
                          const char *comm) noexcept nogil:
    cdef process_t facts
    cdef process_t *old
    cdef process_t *process
    cdef entry_t *entry
    cdef const char *end
    cdef int32_t source
    cdef int64_t begun, ended
    cache_lock(cache)
    entry = entry_find(&cache._entries, pid)
    if entry != NULL and entry.until == 0 and not (entry.source == pid and entry.read_to >= when):
        # Facts read since then show it already, or get() will tell: their image is not what it was.
        facts = entry.process[0]
        if what == ALTERED_UID:
            facts.uid = id
        elif what == ALTERED_GID:
            facts.gid = id
        else:
            facts.comm.at = comm
            end = <const char *>memchr(comm, 0, 16)
            facts.comm.size = end - comm if end != NULL else 16
            facts.has |= PROCESS_COMM
        facts.image = 0    # no longer what /proc would show: the next get() reads
        old = process_take(entry.process)
        process = process_build(&facts)
        if process != NULL:
            source, begun, ended = entry.source, entry.read_from, entry.read_to
            close_entry(entry, when)
            inherit(cache, process, when, source, begun, ended)
        process_drop(old)
    cache_unlock(cache)


cdef void history_exited(ProcessCache cache, int32_t pid, int64_t when) noexcept nogil:
    cdef entry_t *entry
    cache_lock(cache)
    disinherit(cache, pid, when)
    entry = entry_find(&cache._entries, pid)
    # Read after the exit, and started after it: the next to use the pid.
    if entry != NULL and entry.source == pid and entry.read_from > when and entry.process.start > cache_ticks(cache, when):
        entry = entry_before(entry)
    if entry != NULL:
        entry.exited = entry.until == 0
        end_entry(entry, when)
    cache_unlock(cache)


cdef void history_reached(ProcessCache cache, int64_t when) noexcept nogil:
    cache_lock(cache)
    cache._horizon = max(cache._horizon, when)
    cache_unlock(cache)


cdef void history_telling(ProcessCache cache, bint telling) noexcept nogil:
    cache_lock(cache)
    cache._telling = telling
    cache_unlock(cache)


cdef void history_silent(ProcessCache cache, int64_t when) noexcept nogil:
    cache_lock(cache)
    if not cache._telling:
        cache._horizon = max(cache._horizon, when)
    cache_unlock(cache)


cdef void history_lapsed(ProcessCache cache) noexcept nogil:
    cdef entry_t *entry
    cdef entry_t *next
    cdef int64_t horizon
    cache_lock(cache)
    horizon = cache._horizon
    entry = cache._entries.oldest
    while entry != NULL:
        next = entry.newer
        if entry.until == 0 or entry.soft:
            if entry.read_to > horizon or entry.since >= horizon:
                entry_evict(&cache._entries, entry)
            else:
                entry.soft = False
                close_entry(entry, horizon)
        entry = next
    cache._watched = 0
    cache_unlock(cache)


cdef void history_begun(ProcessCache cache, int64_t when) noexcept nogil:
    history_lapsed(cache)    # what was read meanwhile, without events
    cache_lock(cache)
    cache._watched = cache._horizon = when
    cache_unlock(cache)
