"""A netlink socket: groups, buffers, many datagrams per system call, and the kernel's count of what was lost.

It says ENOBUFS for two things. What finds no room in the receive buffer is dropped, and counted exactly
(SK_MEMINFO_DROPS). An event that there was no memory to make (nfnetlink_set_err() in ctnetlink_conntrack_event()) is in no
count: one such error is one event at least.

It knows nothing of what the messages say.
"""
cimport cython
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from linux_netlink cimport (NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP, SK_MEMINFO_DROPS, SK_MEMINFO_RMEM_ALLOC,
                            SK_MEMINFO_VARS, is_of_kernel, sockaddr_nl)
from posix.unistd cimport close as c_close
from sys_socket cimport (AF_NETLINK, MSG_DONTWAIT, MSG_TRUNC, SO_ATTACH_FILTER, SO_MEMINFO, SO_RCVBUF, SO_RCVBUFFORCE,
                         SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, SOL_NETLINK, SOL_SOCKET, bind, connect, getsockopt,
                         iovec, mmsghdr, recvmmsg, send, setsockopt, sock_filter, sock_fprog, sockaddr, socket,
                         socklen_t)

import os


cdef object _error(str what):
    cdef int number = errno
    return OSError(number, f"{what}: {os.strerror(number)}")


@cython.final
@cython.auto_pickle(False)
cdef class Inbox:
    """Room for the datagrams of one system call: `slots`, with slot_size bytes kept of each."""

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
    """A netlink socket of the calling thread's network namespace, bound, that never blocks in receive.

    protocol: NETLINK_* number. slots: datagrams taken per system call. slot_size: bytes kept of each; a longer
    one is counted as truncated and dropped. inbox: where they are taken to instead; sockets that one thread reads can have
    the same. fd: such a socket of any namespace, its own from then on, instead of a new one. What another process sent is
    counted as foreign and dropped. Raises OSError.
    """

    def __cinit__(self, int protocol, int slots=64, size_t slot_size=4096 + 192, Inbox inbox=None, int fd=-1):
        # 4096 alone would put the head of every slot into the same cache set.
        cdef sockaddr_nl address
        self.fd = fd
        self.fork_guard = ForkGuard()
        self.inbox = Inbox(slots, slot_size) if inbox is None else inbox
        self.slots = self.inbox.slots
        if fd < 0:
            self.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)
        if self.fd < 0:
            raise _error("netlink socket")
        # A membership counts only once the socket is bound.
        memset(&address, 0, sizeof(address))
        address.nl_family = AF_NETLINK
        if bind(self.fd, <sockaddr *>&address, sizeof(address)) < 0:
            raise _error("netlink bind")
        # Connected to port 0, the kernel, it refuses what a process might send to it alone: no room is taken by that.
        if connect(self.fd, <sockaddr *>&address, sizeof(address)) < 0:
            raise _error("netlink connect")

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def close(self) -> None:
        """Close the socket; closing twice, or in a process that has it by fork, is harmless."""
        cdef int fd = self.fd
        if fd >= 0:
            if self.fork_guard.here():
                self.count_lost()
            self.fd = -1
            if c_close(fd) < 0 and errno != EINTR:
                raise _error("netlink close")

    def fileno(self) -> int:
        """The file descriptor; ValueError once closed, RuntimeError in a process that has it by fork."""
        self.fork_guard.check("this netlink socket")
        if self.fd < 0:
            raise ValueError("I/O operation on closed netlink socket")
        return self.fd

    def join(self, int group) -> None:
        """Join a multicast group, by number. OSError with EPERM without CAP_NET_ADMIN."""
        if setsockopt(self.fileno(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0:
            raise _error(f"netlink group {group}")

    def leave(self, int group) -> None:
        """Leave a multicast group, by number; what was queued stays queued."""
        if setsockopt(self.fileno(), SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof(group)) < 0:
            raise _error(f"netlink group {group}")

    def set_receive_buffer(self, int size) -> int:
        """Ask for size bytes; return what the kernel now counts against (twice what it granted).

        SO_RCVBUFFORCE (CAP_NET_ADMIN) passes net.core.rmem_max; without it that is the limit.
        """
        cdef int granted = 0
        cdef socklen_t length = sizeof(granted)
        cdef int fd = self.fileno()
        if setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0:
            if setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0:
                raise _error("SO_RCVBUF")
        if getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &granted, &length) < 0:
            raise _error("SO_RCVBUF")
        self.rcvbuf = granted
        return granted

    def attach_filter(self, bytes program) -> None:
        """Attach a classic BPF program, an array of struct sock_filter: what it refuses is never queued."""
        cdef sock_fprog filter
        filter.len = <unsigned short>(len(program) // sizeof(sock_filter))
        filter.filter = <sock_filter *><char *>program
        if setsockopt(self.fileno(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0:
            raise _error("SO_ATTACH_FILTER")

    def send(self, bytes message) -> None:
        """Send one whole request to the kernel."""
        if send(self.fileno(), <char *>message, len(message), 0) != len(message):
            raise _error("netlink send")

    def messages_now(self) -> list:
        """The datagrams at hand, copied, without waiting; for set-up, not for events. OSError on an overrun."""
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
        """Take what is there, at most one datagram a slot and `most` in all: how many, 0 if none, or -errno.

        -ENOBUFS means that events were lost before the next one; lost and overruns are already counted. One thread at
        a time.
        """
        cdef int count
        most = min(most, self.slots)
        count = recvmmsg(self.fd, self.inbox.messages, most, MSG_DONTWAIT, NULL)
        if count >= 0:
            return count
        if errno == ENOBUFS:
            self._begin_loss()
            return -ENOBUFS
        if errno == EAGAIN:
            # The kernel reports a congestion once and goes on dropping until the queue has been emptied.
            if self.congested:
                self._end_loss()
            return 0
        if errno == EINTR:
            return 0
        return -errno

    cdef const void *datagram(self, int index, size_t *length) noexcept nogil:
        """A datagram of the last receive, valid until the next; NULL if it was cut, or is not the kernel's."""
        cdef mmsghdr *message = &self.inbox.messages[index]
        if not is_of_kernel(&self.inbox.senders[index], message.msg_hdr.msg_namelen):
            self.foreign += 1
            return NULL
        if message.msg_hdr.msg_flags & MSG_TRUNC:
            self.truncated += 1
            return NULL
        length[0] = message.msg_len
        return self.inbox.vectors[index].iov_base

    cdef int grow(self, int limit, bint full) noexcept nogil:
        """Double the receive buffer, up to limit bytes, if more than half is used or it was full; 1 if it grew, 0, -errno."""
        cdef int size = self.rcvbuf          # the kernel doubles what is asked for
        cdef int result
        if size // 2 >= limit or not full and self.queued() < size // 2:
            return 0
        result = self.resize(min(size, limit))
        return result if result < 0 else 1

    cdef int resize(self, int size) noexcept nogil:
        """Ask for a receive buffer of `size` bytes; 0 or -errno. What is queued stays, though it be more."""
        cdef socklen_t length = sizeof(size)
        if setsockopt(self.fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, length) < 0:
            return -errno
        if getsockopt(self.fd, SOL_SOCKET, SO_RCVBUF, &self.rcvbuf, &length) < 0:
            return -errno
        return 0

    cdef int64_t queued(self) noexcept nogil:
        """Bytes now counted against the receive buffer, or -errno."""
        cdef uint32_t info[SK_MEMINFO_VARS]
        cdef socklen_t length = sizeof(info)
        if getsockopt(self.fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0:
            return -errno
        return info[SK_MEMINFO_RMEM_ALLOC]

    cdef void _begin_loss(self) noexcept nogil:
        self.overruns += 1
        self.congested = True
        self.unexplained_overruns += not self._explain_loss()

    cdef void _end_loss(self) noexcept nogil:
        self.congested = False
        self._explain_loss()
        self.unmade += self.unexplained_overruns
        self.unexplained_overruns = 0

    cdef bint _explain_loss(self) noexcept nogil:
        """Whether drops were counted since the last look; then they explain an overrun reported before it too."""
        # The kernel reports an overrun just before it counts the drop: one can be seen without the other.
        self.count_lost()
        if self.lost == self.lost_at_overrun:
            return False
        self.lost_at_overrun = self.lost
        if self.unexplained_overruns:
            self.unexplained_overruns -= 1
        return True

    cdef int count_lost(self) noexcept nogil:
        """Bring `lost` up to date from SK_MEMINFO_DROPS; 0 or -errno. Only by the thread that receives: see dropped()."""
        cdef uint32_t info[SK_MEMINFO_VARS]
        cdef socklen_t length = sizeof(info)
        if getsockopt(self.fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0:
            return -errno
        # The kernel's count, from 0 at the start, is the lower half of ours.
        self.lost += <uint32_t>(info[SK_MEMINFO_DROPS] - <uint32_t>self.lost)
        return 0

    cdef uint64_t dropped(self) noexcept nogil:
        """What `lost` would be now, from any thread: it asks the kernel and writes nothing."""
        # In this order: what the kernel says next is not less than what was known before.
        cdef uint64_t known = self.lost
        cdef uint32_t info[SK_MEMINFO_VARS]
        cdef socklen_t length = sizeof(info)
        if getsockopt(self.fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0:
            return known
        return known + <uint32_t>(info[SK_MEMINFO_DROPS] - <uint32_t>known)
