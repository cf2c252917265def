from libc.stdint cimport int64_t, uint64_t

cdef struct pacing_t:
    int64_t woken_at                # CLOCK_MONOTONIC ns of the last wake-up
    uint64_t events_then              # events until then
    bint drained                 # all was read that there was; set again by pace_keep

# Sleeps after a wake-up, 10 ms at most, if the last one was just before. events: read until now. hasty: no longer than
# what it takes to find a socket still there.
cdef void pacing_wait(pacing_t *pacing, uint64_t events, bint brief) noexcept nogil
