"""A descriptor that one thread makes readable for another: eventfd(2).

This does not use os.eventfd(): a signal handler that raises just after the call has returned would leave the descriptor
open.
"""
cimport cython
from libc.stdint cimport uint64_t
from posix.unistd cimport close
from nfct_fast.kernel.os_error cimport os_error
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_read, eventfd_write


@cython.final
@cython.auto_pickle(False)
cdef class Wakeup:
    """An eventfd that is not readable at first. OSError if it cannot be made."""

    def __cinit__(self):
        self.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.fd < 0:
            raise os_error("eventfd")

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def fileno(self) -> int:
        """Return the descriptor, or -1 once it is closed."""
        return self.fd

    def set(self) -> None:
        """Make it readable. Any thread may call this; it has no effect once the descriptor is closed."""
        self.notify()

    def clear(self) -> None:
        """Make it not readable."""
        self.drain()

    cdef void notify(self) noexcept nogil:
        if self.fd >= 0:
            eventfd_write(self.fd, 1)

    cdef void drain(self) noexcept nogil:
        cdef uint64_t count
        if self.fd >= 0:
            eventfd_read(self.fd, &count)

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1
