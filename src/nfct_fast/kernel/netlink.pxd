from libc.stdint cimport int64_t, uint64_t
from stdatomic cimport atomic_int, atomic_uint64_t
from linux_netlink cimport sockaddr_nl
from nfct_fast.kernel.fork_guard cimport ForkGuard
from sys_socket cimport iovec, mmsghdr

# Receive buffers for the datagrams of one recvmmsg(2).
cdef class Inbox:
    cdef int slots
    cdef char *buffer
    cdef mmsghdr *messages
    cdef iovec *vectors
    cdef sockaddr_nl *senders

cdef class NetlinkSocket:
    cdef int fd                      # -1: closed
    cdef readonly ForkGuard fork_guard
    cdef Inbox inbox
    cdef int slots                   # datagrams received by one system call, at most
    cdef bint congested              # an overrun was reported, and the queue has not been seen empty since
    cdef readonly atomic_uint64_t lost   # datagrams that the kernel dropped because the receive buffer was full
    cdef uint64_t lost_at_overrun    # value of `lost` when drops last explained an overrun
    cdef uint64_t unexplained_overruns    # overruns since `congested` was set that no drops explain so far
    cdef readonly atomic_uint64_t unallocated    # overruns without drops: a lower bound of events without memory
    cdef readonly atomic_uint64_t overruns   # how often the kernel reported ENOBUFS
    cdef readonly uint64_t truncated # datagrams dropped because they were longer than a slot
    cdef readonly uint64_t spoofed   # datagrams ignored because a process sent them, not the kernel
    cdef readonly atomic_int rcvbuf  # bytes of the receive buffer as the kernel counts them: twice what was requested
    cdef int receive(self, int most) noexcept nogil
    cdef const void *datagram(self, int index, size_t *length) noexcept nogil
    cdef int grow(self, int limit, bint full) noexcept nogil
    cdef int resize(self, int size) noexcept nogil
    cdef int64_t queued(self) noexcept nogil
    cdef int count_lost(self) noexcept nogil
    cdef uint64_t dropped(self) noexcept nogil
    cdef void _begin_loss(self, bint explained) noexcept nogil
    cdef int _end_loss(self) noexcept nogil
    cdef bint _explain_loss(self) noexcept nogil
