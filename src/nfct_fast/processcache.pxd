"""The cache of process facts by pid and start time."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from .process cimport process_t

cdef struct entry_t:
    process_t *process
    entry_t *chain
    entry_t *newer
    entry_t *older
    int64_t read_at
    int64_t seen_at
    int64_t gone_at          # 0 while it lives

# One caller at a time; the references it hands out may be dropped from any thread.
cdef class ProcessCache:
    cdef int _root
    cdef uint32_t _cmdline_limit, _limit, _count, _mask
    cdef uint64_t _bytes_limit, _bytes
    cdef int64_t _max_age, _linger
    cdef entry_t **_table
    cdef entry_t *_newest
    cdef entry_t *_oldest
    cdef readonly uint64_t reads, hits, evicted

    # The living process: a new reference, or NULL. What was checked no longer than fresh_ns ago is taken as it is;
    # 0 always checks.
    cdef process_t *get(self, int32_t pid, int64_t fresh_ns) noexcept nogil
    # The last process known under this pid, also if it ended up to `linger` ago. Reads nothing. start 0: any.
    cdef process_t *recall(self, int32_t pid, uint64_t start) noexcept nogil
    # After fork or execve: reads the facts anew. 1 if there are any.
    cdef int remember(self, int32_t pid) noexcept nogil
    # After exit: only `recall` still finds it, for as long as `linger`.
    cdef void forget(self, int32_t pid) noexcept nogil
