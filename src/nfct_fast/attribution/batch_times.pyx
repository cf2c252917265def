"""The interval in which the events of a batch happened, on each of the clocks in use.

BPF notes and start times of processes use CLOCK_BOOTTIME, and the reading thread's times CLOCK_MONOTONIC.
"""
from nfct_fast.kernel.clock cimport boottime_ns, clock_ticks, monotonic_ns


cdef void batch_times_set(batch_times_t *self, int64_t received_at, int64_t drained_at) noexcept nogil:
    cdef int64_t before, difference
    cdef int64_t ahead = 0
    cdef int i
    # Take the least difference of three, since the thread may be interrupted for ms between reading the two clocks.
    for i in range(3):
        before = monotonic_ns()
        difference = boottime_ns() - before
        ahead = difference if i == 0 else min(ahead, difference)
    self.received_at, self.drained_at = received_at, drained_at
    self.received_boot, self.drained_boot = received_at + ahead, drained_at + ahead
    self.received_ticks = clock_ticks(self.received_boot)
