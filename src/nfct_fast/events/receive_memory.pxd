"""The receive memory of all sources together, and its distribution among them."""
from libc.stdint cimport int64_t
from posix_pthread cimport pthread_mutex_t
from nfct_fast.kernel.netlink cimport NetlinkSocket

# All sizes are bytes as requested by setsockopt(SO_RCVBUF); the kernel takes up to twice as much. Any thread may use
# it; the mutex protects `used` and `reserved` here and `used` of each Share.
cdef class ReceiveMemory:
    cdef readonly int64_t total      # limit of all receive buffers together
    cdef readonly int64_t used       # bytes granted to open sockets
    cdef readonly int64_t minimum    # bytes that each socket gets at least
    cdef int64_t reserved            # bytes kept back so that sockets opened later get their minimum
    cdef pthread_mutex_t mutex
    cdef bint made                   # the mutex is initialised

cdef class Share:
    cdef readonly ReceiveMemory receive_memory
    cdef readonly int64_t limit      # limit of all buffers of this share together
    cdef readonly int64_t used       # bytes granted to open sockets of this share
    # As NetlinkSocket.grow(), as far as memory is left. Return 1 if the buffer grew, 0 if not, or -errno.
    cdef int grow(self, NetlinkSocket socket, bint full) noexcept nogil
    # Shrink a socket's buffer to `size` if it is larger. 0 or -errno.
    cdef int shrink(self, NetlinkSocket socket, int64_t size) noexcept nogil
    cdef void _account(self, int64_t bytes, bint free) noexcept nogil
    cdef int64_t _available(self) noexcept nogil
    cdef void _use(self, int64_t bytes) noexcept nogil
