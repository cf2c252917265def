"""The kernel's clocks in nanoseconds, without the GIL: clock_gettime(2), which cannot fail for these four."""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec
from posix.unistd cimport _SC_CLK_TCK, sysconf

from procfs_calls cimport CLOCK_BOOTTIME

from nfct_fast.kernel.os_error cimport os_error

cdef extern from "<sys/timex.h>" nogil:
    enum:
        STA_UNSYNC
    struct timex:
        int status
    int adjtimex(timex *state)


cdef int64_t read_clock(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef int64_t monotonic_ns() noexcept nogil:
    return read_clock(CLOCK_MONOTONIC)


cdef int64_t boottime_ns() noexcept nogil:
    return read_clock(CLOCK_BOOTTIME)


cdef int64_t realtime_ns() noexcept nogil:
    return read_clock(CLOCK_REALTIME)


cdef int64_t thread_cpu_ns() noexcept nogil:
    return read_clock(CLOCK_THREAD_CPUTIME_ID)


def is_synchronized() -> bool:
    """Whether something (NTP, PTP, the hypervisor) tells the kernel that it keeps the clock right. OSError."""
    cdef timex state
    memset(&state, 0, sizeof(state))
    if adjtimex(&state) < 0:
        raise os_error("adjtimex")
    return not state.status & STA_UNSYNC


cdef uint64_t clock_ticks(int64_t boottime) noexcept nogil:
    return <uint64_t>(boottime // (1_000_000_000 // sysconf(_SC_CLK_TCK)))
