"""A table of what processes were, by pid: bounded in number and bytes, least recently asked out first."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from .process cimport process_drop, process_t

cdef enum:
    HISTORY = 8              # entries of one pid: a process that execs in a loop must not push out all others


cdef bint entries_make(entries_t *self, uint32_t limit, uint64_t bytes_limit) noexcept nogil:
    cdef uint32_t size = 64
    while size < limit:
        size *= 2
    self.table = <entry_t **>calloc(size, sizeof(entry_t *))
    self.mask, self.limit, self.bytes_limit = size - 1, limit, bytes_limit
    return self.table != NULL


cdef void entries_free(entries_t *self) noexcept nogil:
    cdef entry_t *entry = self.newest
    cdef entry_t *older
    while entry != NULL:
        older = entry.older
        process_drop(entry.process)
        free(entry)
        entry = older
    free(self.table)


cdef inline entry_t **slot(entries_t *self, int32_t pid) noexcept nogil:
    return &self.table[(<uint32_t>pid * <uint32_t>2654435761) >> 8 & self.mask]


cdef entry_t *entry_find(entries_t *self, int32_t pid) noexcept nogil:
    cdef entry_t *entry = slot(self, pid)[0]
    while entry != NULL and entry.process.pid != pid:
        entry = entry.chain
    return entry


cdef entry_t *entry_before(entry_t *entry) noexcept nogil:
    cdef int32_t pid = entry.process.pid
    entry = entry.chain
    while entry != NULL and entry.process.pid != pid:
        entry = entry.chain
    return entry


cdef void entry_unlink(entries_t *self, entry_t *entry) noexcept nogil:
    if entry.newer != NULL:
        entry.newer.older = entry.older
    else:
        self.newest = entry.older
    if entry.older != NULL:
        entry.older.newer = entry.newer
    else:
        self.oldest = entry.newer


cdef void entry_link(entries_t *self, entry_t *entry) noexcept nogil:
    entry.newer = NULL
    entry.older = self.newest
    if self.newest != NULL:
        self.newest.newer = entry
    else:
        self.oldest = entry
    self.newest = entry


cdef void entry_touch(entries_t *self, entry_t *entry) noexcept nogil:
    if self.newest != entry:
        entry_unlink(self, entry)
        entry_link(self, entry)


cdef void entry_evict(entries_t *self, entry_t *entry) noexcept nogil:
    cdef entry_t **p = slot(self, entry.process.pid)
    while p[0] != entry:
        p = &p[0].chain
    p[0] = entry.chain
    entry_unlink(self, entry)
    if entry.until == 0 and entry.since > self.forgotten:
        self.forgotten = entry.since
    self.count -= 1
    self.bytes -= entry.process.bytes + sizeof(entry_t)
    process_drop(entry.process)
    free(entry)


cdef void entry_replace(entries_t *self, entry_t *entry, process_t *process) noexcept nogil:
    self.bytes += process.bytes
    self.bytes -= entry.process.bytes
    process_drop(entry.process)
    entry.process = process


cdef void entries_trim(entries_t *self, uint64_t more) noexcept nogil:
    while self.oldest != NULL and (self.count >= self.limit or self.bytes + more > self.bytes_limit):
        entry_evict(self, self.oldest)
        self.evicted += 1


cdef entry_t *entry_add(entries_t *self, process_t *process, int64_t since) noexcept nogil:
    cdef entry_t *entry
    cdef entry_t **head
    cdef entry_t *last = NULL
    cdef int count = 0
    entries_trim(self, process.bytes + sizeof(entry_t))
    entry = entry_find(self, process.pid)
    while entry != NULL:
        count += 1
        last = entry
        entry = entry_before(entry)
    if count >= HISTORY:
        entry_evict(self, last)
    entry = <entry_t *>calloc(1, sizeof(entry_t))
    if entry == NULL:
        process_drop(process)
        return NULL
    entry.process = process
    entry.source = process.pid
    entry.since = entry.seen_at = since
    head = slot(self, process.pid)
    entry.chain = head[0]
    head[0] = entry
    entry_link(self, entry)
    self.count += 1
    self.bytes += process.bytes + sizeof(entry_t)
    return entry
