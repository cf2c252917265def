"""Receive memory of all sources together, and whose it is."""
from libc.stdint cimport int64_t
from posix_pthread cimport pthread_mutex_t
from nfct_fast.kernel.netlink cimport NetlinkSocket

# For any thread; bytes as asked of the kernel, which takes twice as much.
cdef class ReceiveMemory:
    cdef readonly int64_t total
    cdef readonly int64_t used
    cdef readonly int64_t minimum  # what each socket has at least,
    cdef int64_t reserved            # kept for those that are still to come
    cdef pthread_mutex_t mutex
    cdef bint made

cdef class Share:
    cdef readonly ReceiveMemory receive_memory
    cdef readonly int64_t limit
    cdef readonly int64_t used
    # The receive buffer of a socket that has one of this share: grows as NetlinkSocket.grow does, as far as there is something
    # left. 1 if it grew, 0, -errno.
    cdef int grow(self, NetlinkSocket socket, bint full) noexcept nogil
    # And set back to `size`, if it has more; 0 or -errno.
    cdef int shrink(self, NetlinkSocket socket, int64_t size) noexcept nogil
    cdef void _account(self, int64_t bytes, bint free) noexcept nogil
    cdef int64_t _available(self) noexcept nogil
    cdef void _use(self, int64_t bytes) noexcept nogil
