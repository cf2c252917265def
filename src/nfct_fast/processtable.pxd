"""A table of what processes were, by pid."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from .process cimport process_t

# What one pid was from `since` until `until`. All times are CLOCK_MONOTONIC ns.
cdef struct entry_t:
    process_t *process
    entry_t *chain           # the same hash; of one pid the newest comes first
    entry_t *newer
    entry_t *older
    int64_t since
    int64_t until            # 0 while open
    int64_t read_from        # when /proc was read for these facts
    int64_t read_to
    int64_t read_at          # the same, or when reading again was last tried
    int64_t seen_at          # was it when last looked
    int64_t gone_at          # when this was found to have ended; 0: is believed to live
    int32_t source           # whose /proc directory was read: an ancestor's for what was inherited at fork
    bint soft                # closed by a reading, not by an event
    bint exited              # closed by the exit of its first thread; others may go on

# Zeroed before entries_make; one caller at a time.
cdef struct entries_t:
    entry_t **table
    entry_t *newest          # by when they were last asked for
    entry_t *oldest
    uint32_t mask
    uint32_t count
    uint32_t limit
    uint64_t bytes
    uint64_t bytes_limit
    uint64_t evicted         # how many were pushed out for want of room
    int64_t forgotten        # the latest `since` of an open entry that went

cdef bint entries_make(entries_t *self, uint32_t limit, uint64_t bytes_limit) noexcept nogil    # False without memory
cdef void entries_free(entries_t *self) noexcept nogil
cdef void entries_trim(entries_t *self, uint64_t more) noexcept nogil         # until there is room for `more` bytes
cdef entry_t *entry_find(entries_t *self, int32_t pid) noexcept nogil       # the newest, or NULL
cdef entry_t *entry_before(entry_t *entry) noexcept nogil                     # what the same pid was before, or NULL
# Takes over the reference, also if it returns NULL for want of memory.
cdef entry_t *entry_add(entries_t *self, process_t *process, int64_t since) noexcept nogil
cdef void entry_replace(entries_t *self, entry_t *entry, process_t *process) noexcept nogil
cdef void entry_evict(entries_t *self, entry_t *entry) noexcept nogil
cdef void entry_touch(entries_t *self, entry_t *entry) noexcept nogil         # was asked for
