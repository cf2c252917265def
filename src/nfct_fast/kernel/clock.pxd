"""The kernel's clocks in nanoseconds, without the GIL."""
from libc.stdint cimport int64_t, uint64_t

cdef int64_t monotonic_ns() noexcept nogil    # since boot, without the time that the machine was suspended
cdef int64_t boottime_ns() noexcept nogil     # since boot: the clock of start_boottime and of the BPF programs
cdef int64_t realtime_ns() noexcept nogil     # since the epoch
cdef int64_t thread_cpu_ns() noexcept nogil    # of processor time that the calling thread has had

cdef uint64_t clock_ticks(int64_t boottime) noexcept nogil    # CLOCK_BOOTTIME ns as /proc/PID/stat has it
