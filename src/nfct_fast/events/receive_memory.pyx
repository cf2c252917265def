"""Receive memory of all sources together, and whose it is.

What a socket may queue is no memory yet, but can become some at any time: so the sum of what all may is what is bounded. Bytes are
those asked of the kernel, which counts overhead in and therefore takes twice as much.
"""
cimport cython
from libc.stdint cimport int64_t
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock
from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.kernel.netlink cimport NetlinkSocket

cdef enum:
    MIN_SIZE = 4096        # not worth a system call, and about what the kernel grants in any case


@cython.final
@cython.auto_pickle(False)
cdef class ReceiveMemory:
    """total: bytes that all together may ask for; least: what each of `most` sockets may in any case. ValueError if that is more."""

    def __cinit__(self, int64_t total, int64_t minimum=MIN_SIZE, int sockets=1):
        if minimum < MIN_SIZE or minimum * sockets > total:
            raise ValueError(f"{total} bytes of receive memory are too few for {sockets} sockets of {minimum}")
        self.total, self.minimum = total, minimum
        self.reserved = minimum * sockets
        self.made = mutex_make(&self.mutex)
        if not self.made:
            raise MemoryError("allowance")

    def __dealloc__(self):
        if self.made:
            pthread_mutex_destroy(&self.mutex)

    @property
    def available(self) -> int:
        """What is neither spent nor kept for those that are still to come; from any thread, and old at once."""
        return self.total - self.used - self.reserved


@cython.final
@cython.auto_pickle(False)
cdef class Share:
    """What one owner of namespaces has of an Allowance, `most` bytes at most."""

    def __cinit__(self, ReceiveMemory receive_memory not None, int64_t limit):
        self.receive_memory = receive_memory
        self.limit = limit

    cdef int64_t _available(self) noexcept nogil:
        return min(self.limit - self.used, self.receive_memory.total - self.receive_memory.used - self.receive_memory.reserved)

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
        """Give a socket its first receive buffer: `size` bytes, or what is left, but never less than the least. OSError."""
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
        """The socket is closed: its buffer is free for others. Once."""
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
