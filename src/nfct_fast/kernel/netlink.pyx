"""A netlink socket: groups, buffers, many datagrams per system call, and the kernel's count of lost ones.

ENOBUFS means one of two things. Either a datagram did not fit into the receive buffer: the kernel counts exactly what
it dropped (SK_MEMINFO_DROPS). Or the kernel had no memory to allocate an event (nfnetlink_set_err() in
ctnetlink_conntrack_event()): it keeps no count of these, and one error stands for at least one event.

This module does not look into the messages.
"""
cimport cython
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from linux_netlink cimport (NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP, SK_MEMINFO_DROPS, SK_MEMINFO_RMEM_ALLOC,
                            SK_MEMINFO_VARS, is_of_kernel, sockaddr_nl)
from posix.unistd cimport close as c_close
from sys_socket cimport (AF_NETLINK, MSG_DONTWAIT, MSG_TRUNC, SO_ATTACH_FILTER, SO_ERROR, SO_MEMINFO, SO_RCVBUF,
                         SO_RCVBUFFORCE, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, SOL_NETLINK, SOL_SOCKET, bind, connect,
                         getsockopt, iovec, mmsghdr, poll, recvmmsg, send, setsockopt, sock_filter, sock_fprog,
                         sockaddr, socket, socklen_t)

from nfct_fast.kernel.os_error cimport os_error

import os

cdef enum:
    # How long a drop may be counted after its overrun was reported. That is a few instructions, during which a
    # hypervisor may halt the processor that executes them.
    LATE_DROP_MS = 50


@cython.final
@cython.auto_pickle(False)
cdef class Inbox:
    """Buffers for the datagrams of one recvmmsg(2): `slots` of them, of slot_size bytes each."""

    def __cinit__(self, int slots, size_t slot_size):
        cdef int i
        self.slots = slots
        self.buffer = <char *>calloc(slots, slot_size)
        self.messages = <mmsghdr *>calloc(slots, sizeof(mmsghdr))
        self.vectors = <iovec *>calloc(slots, sizeof(iovec))
        self.senders = <sockaddr_nl *>calloc(slots, sizeof(sockaddr_nl))
        if self.buffer == NULL or self.messages == NULL or self.vectors == NULL or self.senders == NULL:
            raise MemoryError("netlink buffers")
        for i in range(slots):
            self.vectors[i].iov_base = self.buffer + i * slot_size
            self.vectors[i].iov_len = slot_size
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1
            self.messages[i].msg_hdr.msg_name = &self.senders[i]
            self.messages[i].msg_hdr.msg_namelen = sizeof(sockaddr_nl)

    def __dealloc__(self):
        free(self.buffer)
        free(self.messages)
        free(self.vectors)
        free(self.senders)


@cython.final
@cython.auto_pickle(False)
cdef class NetlinkSocket:
    """A bound netlink socket in the calling thread's network namespace.

    Receiving from it does not wait for datagrams. At the end of a loss that no drop explains it waits for the drop to
    be counted, for 50 ms at most.

    Datagrams sent by a process instead of the kernel are counted in `spoofed` and dropped.

    Args:
        protocol: NETLINK_* number.
        slots: Datagrams received by one system call, at most.
        slot_size: Bytes of a slot; a longer datagram is counted in `truncated` and dropped.
        inbox: Buffers to use instead of new ones; sockets that the same thread reads can share them.
        fd: A netlink socket to take over instead of making one; it may be of another namespace.

    Raises:
        OSError: The socket cannot be made, bound or connected.
    """

    def __cinit__(self, int protocol, int slots=64, size_t slot_size=4096 + 192, Inbox inbox=None, int fd=-1):
        # slot_size is not a power of two, or the first cache lines of all slots would compete for the same cache set.
        cdef sockaddr_nl address
        self.fd = fd
        self.fork_guard = ForkGuard()
        self.inbox = Inbox(slots, slot_size) if inbox is None else inbox
        self.slots = self.inbox.slots
        if fd < 0:
            self.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)
        if self.fd < 0:
            raise os_error("netlink socket")
        # Group memberships take effect only once the socket is bound.
        memset(&address, 0, sizeof(address))
        address.nl_family = AF_NETLINK
        if bind(self.fd, <sockaddr *>&address, sizeof(address)) < 0:
            raise os_error("netlink bind")
        # A socket connected to the kernel (port 0) refuses unicasts from processes, which would take buffer space.
        if connect(self.fd, <sockaddr *>&address, sizeof(address)) < 0:
            raise os_error("netlink connect")

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def close(self) -> None:
        """Close the socket; closing twice, or in a forked child, is harmless."""
        cdef int fd = self.fd
        if fd >= 0:
            if self.fork_guard.here():
                self.count_lost()
            self.fd = -1
            if c_close(fd) < 0 and errno != EINTR:
                raise os_error("netlink close")

    def fileno(self) -> int:
        """The file descriptor; ValueError once it is closed, RuntimeError in a forked child."""
        self.fork_guard.check("this netlink socket")
        if self.fd < 0:
            raise ValueError("I/O operation on closed netlink socket")
        return self.fd

    def join(self, int group) -> None:
        """Join a multicast group, by number. OSError(EPERM) without CAP_NET_ADMIN."""
        if setsockopt(self.fileno(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0:
            raise os_error(f"netlink group {group}")

    def leave(self, int group) -> None:
        """Leave a multicast group, by number. Datagrams already queued stay queued."""
        if setsockopt(self.fileno(), SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof(group)) < 0:
            raise os_error(f"netlink group {group}")

    def set_receive_buffer(self, int size) -> int:
        """Request a receive buffer of `size` bytes; return the kernel's limit, which is twice the bytes it granted.

        With CAP_NET_ADMIN (SO_RCVBUFFORCE) the buffer may exceed net.core.rmem_max.
        """
        cdef int granted = 0
        cdef socklen_t length = sizeof(granted)
        cdef int fd = self.fileno()
        if setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0:
            if setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0:
                raise os_error("SO_RCVBUF")
        if getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &granted, &length) < 0:
            raise os_error("SO_RCVBUF")
        self.rcvbuf = granted
        return granted

    def attach_filter(self, bytes program) -> None:
        """Attach a classic BPF program, an array of struct sock_filter. Datagrams that it rejects are never queued."""
        cdef sock_fprog filter
        filter.len = <unsigned short>(len(program) // sizeof(sock_filter))
        filter.filter = <sock_filter *><char *>program
        if setsockopt(self.fileno(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0:
            raise os_error("SO_ATTACH_FILTER")

    def send(self, bytes message) -> None:
        """Send one whole request to the kernel."""
        if send(self.fileno(), <char *>message, len(message), 0) != len(message):
            raise os_error("netlink send")

    def messages_now(self) -> list:
        """Return copies of the datagrams queued now, without waiting: for set-up code. OSError on an overrun."""
        cdef int i
        cdef int count
        cdef size_t length
        cdef const char *data
        self.fileno()
        count = self.receive(self.slots)
        if count < 0:
            raise OSError(-count, f"netlink receive: {os.strerror(-count)}")
        result = []
        for i in range(count):
            data = <const char *>self.datagram(i, &length)
            if data != NULL:
                result.append(data[:length])
        return result

    cdef int receive(self, int most) noexcept nogil:
        """Receive the datagrams queued now, at most `most` and one for each slot. Return how many, or -errno.

        -ENOBUFS means that events were lost before the next datagram; `lost` and `overruns` include them. One thread at
        a time.
        """
        cdef int count
        most = min(most, self.slots)
        count = recvmmsg(self.fd, self.inbox.messages, most, MSG_DONTWAIT, NULL)
        if count >= 0:
            return count
        if errno == ENOBUFS:
            self._begin_loss(self._explain_loss())
            return -ENOBUFS
        if errno == EAGAIN:
            # The kernel reports congestion once, and goes on dropping until the queue is empty.
            return self._end_loss() if self.congested else 0
        if errno == EINTR:
            return 0
        return -errno

    cdef const void *datagram(self, int index, size_t *length) noexcept nogil:
        """Return a datagram of the last receive(), valid until the next one; NULL if it is truncated or spoofed."""
        cdef mmsghdr *message = &self.inbox.messages[index]
        if not is_of_kernel(&self.inbox.senders[index], message.msg_hdr.msg_namelen):
            self.spoofed += 1
            return NULL
        if message.msg_hdr.msg_flags & MSG_TRUNC:
            self.truncated += 1
            return NULL
        length[0] = message.msg_len
        return self.inbox.vectors[index].iov_base

    cdef int grow(self, int limit, bint full) noexcept nogil:
        """Double the receive buffer, up to `limit` bytes, if it is half full or `full`. 1 if it grew, 0 or -errno."""
        cdef int size = self.rcvbuf          # the kernel doubles what is requested
        cdef int result
        if size // 2 >= limit or not full and self.queued() < size // 2:
            return 0
        result = self.resize(min(size, limit))
        return result if result < 0 else 1

    cdef int resize(self, int size) noexcept nogil:
        """Request a receive buffer of `size` bytes. 0 or -errno. Queued datagrams stay, even if they take more."""
        cdef socklen_t length = sizeof(size)
        cdef int granted
        if setsockopt(self.fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, length) < 0:
            return -errno
        if getsockopt(self.fd, SOL_SOCKET, SO_RCVBUF, &granted, &length) < 0:
            return -errno
        self.rcvbuf = granted
        return 0

    cdef int64_t queued(self) noexcept nogil:
        """Return the bytes of the receive buffer that the queue takes now, or -errno."""
        cdef uint32_t info[SK_MEMINFO_VARS]
        cdef socklen_t length = sizeof(info)
        if getsockopt(self.fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0:
            return -errno
        return info[SK_MEMINFO_RMEM_ALLOC]

    cdef void _begin_loss(self, bint explained) noexcept nogil:
        self.overruns += 1
        self.congested = True
        self.unexplained_overruns += not explained

    cdef int _end_loss(self) noexcept nogil:
        """The queue was empty: return 0, or -ENOBUFS if there has been another overrun since, or another -errno."""
        cdef int error = 0
        cdef socklen_t length = sizeof(error)
        cdef bint explained
        cdef int _
        for _ in range(LATE_DROP_MS):
            explained = self._explain_loss()
            if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0:
                return -errno
            if error == ENOBUFS:
                # The drop of that overrun may be among those just counted.
                self._begin_loss(explained)
                return -ENOBUFS
            if error != 0:
                return -error
            if self.unexplained_overruns == 0:
                break
            if poll(NULL, 0, 1) < 0 and errno != EINTR:
                return -errno
        self.congested = False
        self.unallocated += self.unexplained_overruns
        self.unexplained_overruns = 0
        return 0

    cdef bint _explain_loss(self) noexcept nogil:
        """Return whether drops were counted since the last overrun; they also explain one that was reported before."""
        # The kernel reports an overrun just before it counts the drop (netlink_overrun()), so we may see the report
        # without the drop.
        self.count_lost()
        if self.lost == self.lost_at_overrun:
            return False
        self.lost_at_overrun = self.lost
        if self.unexplained_overruns:
            self.unexplained_overruns -= 1
        return True

    cdef int count_lost(self) noexcept nogil:
        """Update `lost` from SK_MEMINFO_DROPS. 0 or -errno. Only for the receiving thread; others call dropped()."""
        cdef uint32_t info[SK_MEMINFO_VARS]
        cdef socklen_t length = sizeof(info)
        if getsockopt(self.fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0:
            return -errno
        # The kernel's count has 32 bits and starts from 0, so it is the lower half of ours.
        self.lost += <uint32_t>(info[SK_MEMINFO_DROPS] - <uint32_t>self.lost)
        return 0

    cdef uint64_t dropped(self) noexcept nogil:
        """Return what `lost` would be after count_lost(). Changes nothing, so any thread may call it."""
        # Read `lost` first, so that the kernel's count is not less than it.
        cdef uint64_t known = self.lost
        cdef uint32_t info[SK_MEMINFO_VARS]
        cdef socklen_t length = sizeof(info)
        if getsockopt(self.fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0:
            return known
        return known + <uint32_t>(info[SK_MEMINFO_DROPS] - <uint32_t>known)
