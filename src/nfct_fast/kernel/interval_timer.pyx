"""A descriptor that becomes readable at regular intervals: timerfd_create(2). os.timerfd_create() needs Python 3.13."""
cimport cython
from libc.stdint cimport uint64_t
from libc.string cimport memset
from posix.unistd cimport close, read

from nfct_fast.kernel.os_error cimport os_error

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec

cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_CLOEXEC
        TFD_NONBLOCK
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new_value, itimerspec *old_value)


@cython.final
@cython.auto_pickle(False)
cdef class IntervalTimer:
    """A timer that expires every `us` microseconds of the monotonic clock, for the first time after one interval.

    Raises:
        ValueError: `us` is not above 0.
        OSError: The kernel refuses.
    """
    cdef int fd      # -1: closed

    def __cinit__(self, uint64_t us):
        cdef itimerspec times
        self.fd = -1
        if us == 0:
            raise ValueError("an interval has to be above 0")
        self.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self.fd < 0:
            raise os_error("timerfd_create")
        memset(&times, 0, sizeof(times))
        times.it_interval.tv_sec = <long>(us // 1_000_000)
        times.it_interval.tv_nsec = <long>(us % 1_000_000 * 1000)
        times.it_value = times.it_interval
        if timerfd_settime(self.fd, 0, &times, NULL) < 0:
            raise os_error("timerfd_settime")

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def fileno(self) -> int:
        """Return the descriptor, or -1 once it is closed."""
        return self.fd

    def expired(self) -> bool:
        """Return whether it has expired since the last call, without waiting; from then on it is not readable."""
        cdef uint64_t count
        return self.fd >= 0 and read(self.fd, &count, sizeof(count)) == sizeof(count)

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1
