"""A target that takes bytes in order: a file, a pipe, a terminal, or a TCP connection."""
cimport cython
from libc.errno cimport EPIPE, ETIMEDOUT
from nfct_fast.output.sink cimport Sink
from nfct_fast.output.target cimport Target, entry_t
from sys_socket cimport MSG_DONTWAIT, recv

import os

from nfct_fast.output.target import RETRY_S

_RECONNECT_S = 1.0


@cython.final
@cython.auto_pickle(False)
cdef class StreamTarget(Target):
    """Writes entries one after the other. An entry that was begun is completed before the next, however late.

    Args:
        name: For messages.
        stop_fd: See Sink.
        fd: The descriptor, which is not closed; or
        opener: a function that opens what is written to, at first and for reopen(). OSError.
        connection: It is a connection, which is opened again when it breaks; the entry that was cut is repeated there.
    """
    cdef Sink sink
    cdef size_t partial          # bytes of the next entry that are written already
    cdef int stop_fd
    cdef int own_fd              # closed with the object; -1: none
    cdef object opener
    cdef bint connection

    def __cinit__(self, name, int stop_fd, *, int fd=-1, opener=None, bint connection=False):
        self.name, self.stop_fd, self.opener, self.connection = name, stop_fd, opener, connection
        self.own_fd = -1
        if opener is None:
            self.sink = Sink(fd, stop_fd)
        else:
            self._open()

    def __dealloc__(self):
        if self.own_fd >= 0:
            os.close(self.own_fd)

    def _open(self):
        fd = self.opener()
        try:
            sink = Sink(fd, self.stop_fd)
        except OSError:
            os.close(fd)
            raise
        if self.sink is not None:
            sink.deadline = self.sink.deadline
        self.sink, self.partial = sink, 0
        if self.own_fd >= 0:
            os.close(self.own_fd)
        self.own_fd = fd

    cdef bint _is_closed_by_peer(self) noexcept nogil:
        # A write to a connection that the other end has closed succeeds once, and what it wrote is lost.
        cdef char ignored[512]
        cdef ssize_t got = 1
        while got > 0:
            got = recv(self.sink.fd, ignored, sizeof(ignored), MSG_DONTWAIT)
        return got == 0

    cdef int put(self, const char *data, const entry_t *entries, size_t count) noexcept nogil:
        cdef size_t length = 0
        cdef size_t i, left
        cdef int result
        self.done = 0
        for i in range(count):
            length += entries[i].size
        if self.connection and self._is_closed_by_peer():
            return -EPIPE
        result = self.sink.put(data + self.partial, length - self.partial)
        left = self.partial + self.sink.written
        while self.done < count and left >= entries[self.done].size:
            left -= entries[self.done].size
            self.done += 1
        self.partial = left
        if result == -ETIMEDOUT and self.sink.deadline == 0:     # the connection's own
            return -EPIPE
        return result

    def recover(self, number) -> float | None:
        """See Target: a connection is opened again; of a pipe whose reader is gone nothing more is expected."""
        if not self.connection:
            return None if number == EPIPE else RETRY_S
        try:
            self._open()
        except OSError:
            pass
        return _RECONNECT_S

    def reopen(self) -> None:
        """See Target."""
        if self.opener is not None and not self.connection:
            self._open()
