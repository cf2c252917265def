"""A descriptor that one thread makes readable for another: eventfd(2).

Not by os.eventfd(): a signal's handler that raises just after that has returned would leave the descriptor open.
"""
cimport cython
from libc.errno cimport errno
from libc.stdint cimport uint64_t
from posix.unistd cimport close
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_read, eventfd_write

import os


@cython.final
@cython.auto_pickle(False)
cdef class Wakeup:
    """Not readable at first. OSError without a descriptor."""

    def __cinit__(self):
        self.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.fd < 0:
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self.fd

    def set(self) -> None:
        """Make it readable; from any thread, and without effect once it is closed."""
        if self.fd >= 0:
            eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Make it not readable."""
        cdef uint64_t times
        if self.fd >= 0:
            eventfd_read(self.fd, &times)

    def close(self) -> None:
        """Closing twice is harmless."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1
