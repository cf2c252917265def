"""The base class of what takes entries, which are lines or datagrams: a stream or a datagram socket."""
cimport cython

RETRY_S = 0.25           # how long to wait until what failed is tried again


@cython.auto_pickle(False)
cdef class Target:
    """Where a BufferedOutput delivers. Abstract; see StreamTarget and DatagramTarget."""

    cdef int put(self, const char *data, const entry_t *entries, size_t count) noexcept nogil:
        self.done = count
        return 0

    def recover(self, number) -> float | None:
        """After put() failed with errno `number`, return in how many seconds to try again; None if that is no use."""
        return None

    def reopen(self) -> None:
        """Open the same name again, if it has one. OSError: what was open before is used on."""
