from libc.stdint cimport int64_t, uint64_t

cdef struct pacing_t:
    int64_t awake                # CLOCK_MONOTONIC ns of the last wake-up
    uint64_t before              # events until then
    bint drained                 # all was read that there was; set again by pace_keep

# Sleeps after a wake-up, 10 ms at most, if the last one was just before. events: read until now. hasty: no longer than
# what it takes to find a socket still there.
cdef void pace_keep(pacing_t *pace, uint64_t events, bint hasty) noexcept nogil
