"""When the events of a batch can have happened, on each clock that is compared with.

Notes of the BPF programs and start times of processes are on CLOCK_BOOTTIME, and the reader's times on CLOCK_MONOTONIC.
"""
from nfct_fast.kernel.clock cimport boottime_ns, clock_ticks, monotonic_ns


cdef void batch_times_set(batch_times_t *self, int64_t received_at, int64_t drained_at) noexcept nogil:
    cdef int64_t before, difference
    cdef int64_t ahead = 0
    cdef int i
    # The least of three readings: the thread may be interrupted for milliseconds between the two clocks.
    for i in range(3):
        before = monotonic_ns()
        difference = boottime_ns() - before
        ahead = difference if i == 0 else min(ahead, difference)
    self.received_at, self.drained_at = received_at, drained_at
    self.received_boot, self.drained_boot = received_at + ahead, drained_at + ahead
    self.received_ticks = clock_ticks(self.received_boot)
