"""The receive memory of all sources together, and its distribution among them.

A socket's receive buffer takes no memory until events are queued, but may fill up at any moment. Therefore the sum of
the buffers' limits is bounded. Sizes are bytes as requested from the kernel, which adds overhead and takes up to twice
as much.
"""
cimport cython
from libc.stdint cimport int64_t
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock
from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.kernel.netlink cimport NetlinkSocket

cdef enum:
    MIN_SIZE = 4096      # smallest buffer; the kernel grants about this much in any case


@cython.final
@cython.auto_pickle(False)
cdef class ReceiveMemory:
    """The memory that all sources together may request.

    Args:
        total: Bytes of all receive buffers together.
        minimum: Bytes that each socket is guaranteed.
        sockets: Number of sockets with that guarantee.

    Raises:
        ValueError: The guarantees exceed the total.
    """

    def __cinit__(self, int64_t total, int64_t minimum=MIN_SIZE, int sockets=1):
        if minimum < MIN_SIZE or minimum * sockets > total:
            raise ValueError(f"{total} bytes of receive memory are too few for {sockets} sockets of {minimum}")
        self.total, self.minimum = total, minimum
        self.reserved = minimum * sockets
        self.made = mutex_make(&self.mutex)
        if not self.made:
            raise MemoryError("pthread_mutex_init: no memory")

    def __dealloc__(self):
        if self.made:
            pthread_mutex_destroy(&self.mutex)

    @property
    def available(self) -> int:
        """Bytes neither used nor reserved, int. Any thread may call this; the value may be outdated immediately."""
        return self.total - self.used - self.reserved


@cython.final
@cython.auto_pickle(False)
cdef class Share:
    """The part of the receive memory that one owner of namespaces may use: up to `limit` bytes."""

    def __cinit__(self, ReceiveMemory receive_memory not None, int64_t limit):
        self.receive_memory = receive_memory
        self.limit = limit

    cdef int64_t _available(self) noexcept nogil:
        cdef int64_t left = self.receive_memory.total - self.receive_memory.used - self.receive_memory.reserved
        return min(self.limit - self.used, left)

    cdef void _use(self, int64_t bytes) noexcept nogil:
        self.used += bytes
        self.receive_memory.used += bytes

    cdef void _account(self, int64_t bytes, bint free) noexcept nogil:
        pthread_mutex_lock(&self.receive_memory.mutex)
        self._use(bytes)
        if free:
            self.receive_memory.reserved += self.receive_memory.minimum
        pthread_mutex_unlock(&self.receive_memory.mutex)

    def open(self, NetlinkSocket socket not None, int64_t size) -> None:
        """Set a socket's initial receive buffer: `size` bytes or what is available, at least the minimum. OSError."""
        pthread_mutex_lock(&self.receive_memory.mutex)
        self.receive_memory.reserved -= self.receive_memory.minimum
        size = max(self.receive_memory.minimum, min(size, self._available()))
        self._use(size)
        pthread_mutex_unlock(&self.receive_memory.mutex)
        try:
            socket.set_receive_buffer(size)
        except BaseException:
            self._account(-size, True)
            raise
        self._account(socket.rcvbuf // 2 - size, False)

    def close(self, NetlinkSocket socket not None) -> None:
        """Return the buffer of a closed socket. Call once for each open()."""
        self._account(-(socket.rcvbuf // 2), True)

    cdef int shrink(self, NetlinkSocket socket, int64_t size) noexcept nogil:
        cdef int before = socket.rcvbuf
        cdef int result = 0
        if before // 2 > size:
            result = socket.resize(<int>size)
            self._account(socket.rcvbuf // 2 - before // 2, False)
        return result

    cdef int grow(self, NetlinkSocket socket, bint full) noexcept nogil:
        cdef int before = socket.rcvbuf
        cdef int64_t available
        cdef int result = 0
        pthread_mutex_lock(&self.receive_memory.mutex)
        available = self._available()
        if available >= MIN_SIZE:
            result = socket.grow(<int>min(<int64_t>before // 2 + available, <int64_t>0x3fffffff), full)
            self._use(socket.rcvbuf // 2 - before // 2)
        pthread_mutex_unlock(&self.receive_memory.mutex)
        return result
