"""Let events accumulate between wake-ups when they come fast; a single event is read immediately.

At 40,000 flows/s a wake-up then brings some 400 events instead of 1 or 2, and an event takes less than 4 us of CPU time
instead of 10. Waking every 8 ms instead of every 4 saved a tenth of all the time that a flow takes; at 10,000 flows/s,
waking every 10 ms instead of every 1 ms saved half.
"""
from libc.stdint cimport int64_t, uint64_t
from posix.time cimport nanosleep, timespec

from nfct_fast.kernel.clock cimport monotonic_ns

cdef enum:
    PAUSE_NS = 1000000       # the shortest time between two wake-ups
    BRIEF_PAUSE_NS = 100000  # the same if owners can only be found while their sockets are open
    MAX_PAUSES = 10          # the longest time, in multiples of the shortest, when events come fast


cdef void pacing_wait(pacing_t *pacing, uint64_t events, bint brief) noexcept nogil:
    cdef int64_t now = monotonic_ns()
    cdef int64_t fast = <int64_t>(events - pacing.events_then) // 4
    cdef int64_t length = (BRIEF_PAUSE_NS if brief else PAUSE_NS) * max(1, min(MAX_PAUSES, fast))
    cdef timespec pause
    if pacing.drained and now - pacing.woken_at < length:
        pause.tv_sec = 0
        pause.tv_nsec = pacing.woken_at + length - now
        nanosleep(&pause, NULL)     # if a signal cuts it short, fewer events accumulate
        now = monotonic_ns()
    pacing.woken_at = now
    pacing.events_then = events
    pacing.drained = True
