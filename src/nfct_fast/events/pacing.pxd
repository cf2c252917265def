from libc.stdint cimport int64_t, uint64_t

# State of one reading thread. All zero at first.
cdef struct pacing_t:
    int64_t woken_at             # CLOCK_MONOTONIC ns of the last wake-up
    uint64_t events_then         # events received before it
    bint drained                 # every queue was read empty since; pacing_wait() sets it

# Call after a wake-up: sleep for up to 10 ms if the last one was just before. events: number of events received so far.
# brief: sleep for up to 1 ms only, so that sockets can still be found by a live look-up.
cdef void pacing_wait(pacing_t *pacing, uint64_t events, bint brief) noexcept nogil
