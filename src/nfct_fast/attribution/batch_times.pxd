"""The interval in which the events of a batch happened: after `drained`, and before `received`."""
from libc.stdint cimport int64_t, uint64_t

ctypedef struct batch_times_t:
    int64_t received_at      # CLOCK_MONOTONIC ns when the batch was received; nothing read before that is used
    int64_t drained_at       # CLOCK_MONOTONIC ns when all earlier events were last known to be received; 0: not known
    int64_t received_boot    # received_at on CLOCK_BOOTTIME, ns
    int64_t drained_boot     # drained_at on CLOCK_BOOTTIME, ns
    uint64_t received_ticks  # received_at in the unit of process_t.start, clock ticks since boot

cdef void batch_times_set(batch_times_t *self, int64_t received_at, int64_t drained_at) noexcept nogil
