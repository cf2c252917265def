from libc.stdint cimport int64_t, uint64_t
from linux_netlink cimport sockaddr_nl
from nfct_fast.kernel.fork_guard cimport ForkGuard
from sys_socket cimport iovec, mmsghdr

cdef class Inbox:
    cdef int slots
    cdef char *buffer
    cdef mmsghdr *messages
    cdef iovec *vectors
    cdef sockaddr_nl *senders

cdef class NetlinkSocket:
    cdef int fd
    cdef readonly ForkGuard fork_guard
    cdef Inbox inbox
    cdef int slots
    cdef bint congested
    cdef readonly uint64_t lost      # dropped by the kernel, as last counted
    cdef uint64_t lost_at_overrun           # and when it last lost_at_overrun that events were lost
    cdef uint64_t unexplained_overruns    # times that it lost_at_overrun so, and had dropped none
    cdef readonly uint64_t unmade    # of these those that no drop explained later either
    cdef readonly uint64_t overruns
    cdef readonly uint64_t truncated
    cdef readonly uint64_t foreign     # datagrams that the kernel did not send
    cdef readonly int rcvbuf         # bytes the kernel counts against, twice what was asked for
    cdef int receive(self, int most) noexcept nogil
    cdef const void *datagram(self, int index, size_t *length) noexcept nogil
    cdef int grow(self, int limit, bint full) noexcept nogil
    cdef int resize(self, int size) noexcept nogil
    cdef int64_t queued(self) noexcept nogil
    cdef int count_lost(self) noexcept nogil
    cdef uint64_t dropped(self) noexcept nogil
    cdef void _begin_loss(self) noexcept nogil
    cdef void _end_loss(self) noexcept nogil
    cdef bint _explain_loss(self) noexcept nogil
