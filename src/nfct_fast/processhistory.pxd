"""What fork, exec and exit change in what is known of processes. `when`: CLOCK_MONOTONIC ns, as the kernel stamped it."""
from libc.stdint cimport int32_t, int64_t, uint32_t

from .processcache cimport ProcessCache
from .readings cimport Readings

cdef enum:    # what history_altered is told of
    ALTERED_UID = 1
    ALTERED_GID = 2
    ALTERED_COMM = 3

cdef void history_forked(ProcessCache cache, int32_t ppid, int32_t pid, int64_t when) noexcept nogil
# 1, or 0 if the process ended before its command line could be read.
cdef int history_executed(ProcessCache cache, Readings readings, int32_t pid, int64_t when) noexcept nogil
cdef void history_altered(ProcessCache cache, int32_t pid, int64_t when, int what, uint32_t id, const char *comm) noexcept nogil
cdef void history_exited(ProcessCache cache, int32_t pid, int64_t when) noexcept nogil
# Everything that happened before `when` has been told.
cdef void history_reached(ProcessCache cache, int64_t when) noexcept nogil
# What was taken from the queue is being told, or has been. When nothing was queued at `when`: all until then has been told,
# unless something still is.
cdef void history_telling(ProcessCache cache, bint telling) noexcept nogil
cdef void history_silent(ProcessCache cache, int64_t when) noexcept nogil
# Events are lost, or no longer told: what was open is known up to the last time reached, and no longer.
cdef void history_lapsed(ProcessCache cache) noexcept nogil
# Every event from `when` on will be told.
cdef void history_begun(ProcessCache cache, int64_t when) noexcept nogil
