"""Write to a file descriptor in a way that a request to end always interrupts."""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, ETIMEDOUT, EINTR, errno
from libc.stdint cimport int64_t
from posix.unistd cimport close, write
from sys_socket cimport POLLIN, POLLOUT, poll, pollfd

from nfct_fast.kernel.clock cimport monotonic_ns

import os
import stat

cdef enum:
    PIPE_ATOMIC = 4096       # PIPE_BUF: a write of this much to a pipe that polls writable does not block
    GRACE_MS = 500           # how long writing may still take once the program was asked to end
    LAST_MS = 100            # how long put_last() waits after that


cdef int64_t _now_ms() noexcept nogil:
    return monotonic_ns() // 1_000_000


cdef size_t whole_lines(const char *data, size_t length) noexcept nogil:
    """Return the length of the whole lines in data[0..length); `length` if no line ends there."""
    cdef size_t end = length
    while end and data[end - 1] != c"\n":
        end -= 1
    return end or length


cdef object sink_error(int result):
    if result == -ETIMEDOUT:
        return OSError(ETIMEDOUT, "output took nothing for 0.5 s while ending: the last lines were not written")
    return OSError(-result, f"output: {os.strerror(-result)}")


@cython.final
@cython.auto_pickle(False)
cdef class Sink:
    """An output that writes whole blocks to a file descriptor, in order.

    Args:
        fd: The descriptor. It is neither closed nor made non-blocking, because other processes may share it.
        stop_fd: A descriptor that becomes readable when the program is asked to end; from then on writing may take 0.5
            seconds. -1 for none.

    Raises:
        OSError: `fd` is not open.
    """

    def __cinit__(self, int fd, int stop_fd=-1):
        mode = os.fstat(fd).st_mode
        self.reopened_fd = -1
        self.stop_fd = stop_fd
        self.deadline = 0
        # A regular file always polls writable and takes any size; a write to anything else may block halfway.
        self.chunked = not stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            # A terminal that polls writable may still block. Opened anew, it can be made non-blocking for us alone.
            try:
                self.reopened_fd = os.open(f"/proc/self/fd/{fd}",
                                           os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            except OSError:
                pass            # the terminal is another user's, or there is no /proc: small chunks must do
        self.fd = fd if self.reopened_fd < 0 else self.reopened_fd

    def __dealloc__(self):
        if self.reopened_fd >= 0:
            close(self.reopened_fd)

    cdef int wait(self) noexcept nogil:
        """Wait until fd is writable: 0, -EINTR once if asked to end, -ETIMEDOUT after the deadline, or -errno."""
        cdef pollfd fds[2]
        cdef int timeout
        cdef int ready
        while True:
            fds[0].fd = self.fd
            fds[0].events = POLLOUT
            fds[0].revents = 0
            fds[1].fd = self.stop_fd if self.deadline == 0 else -1
            fds[1].events = POLLIN
            fds[1].revents = 0
            timeout = -1
            if self.deadline:
                timeout = <int>max(0, self.deadline - _now_ms())
            ready = poll(fds, 2, timeout)
            if ready < 0:
                if errno == EINTR:
                    continue
                return -errno
            if fds[1].revents:
                self.deadline = _now_ms() + GRACE_MS
                return -EINTR
            if self.deadline and _now_ms() >= self.deadline:
                return -ETIMEDOUT
            if fds[0].revents:
                return 0        # writable, or write() will fail and say why

    cdef int put(self, const char *data, size_t length) noexcept nogil:
        cdef ssize_t written
        cdef size_t piece
        cdef int result
        self.written = 0
        while self.written < length:
            piece = length - self.written
            if self.chunked:
                result = self.wait()
                if result < 0:
                    return result
                # A pipe takes a piece of this size as a whole or not at all, so no line is cut if it stops.
                if piece > PIPE_ATOMIC:
                    piece = whole_lines(data + self.written, PIPE_ATOMIC)
            written = write(self.fd, data + self.written, piece)
            if written < 0:
                if errno == EINTR or errno == EAGAIN:
                    continue
                return -errno
            self.written += written
        return 0

    cdef bint put_last(self, const char *data, size_t length) noexcept nogil:
        cdef pollfd ready
        ready.fd = self.fd
        ready.events = POLLOUT
        ready.revents = 0
        return poll(&ready, 1, LAST_MS) == 1 and write(self.fd, data, length) == <ssize_t>length

    def write(self, data) -> None:
        """Write all of data. Blocks as long as the descriptor does; see the class.

        Raises:
            BrokenPipeError: The reader is gone.
            OSError: ENOSPC on a full disk; ETIMEDOUT if the program was asked to end and the descriptor did not take
                everything in time.
        """
        cdef int result = 0
        cdef size_t done = 0
        cdef Py_buffer view      # not a typed memoryview, for which Cython would add 80 KB to the module
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while done < <size_t>view.len and (result == 0 or result == -EINTR):
                with nogil:
                    result = self.put(<const char *>view.buf + done, <size_t>view.len - done)
                done += self.written
        finally:
            PyBuffer_Release(&view)
        if result < 0:
            raise sink_error(result)
