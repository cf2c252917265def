"""Requests to the kernel over netlink, and its replies. This module does not look into the messages."""
from libc.errno cimport E2BIG, EAGAIN, EBADMSG, EINTR, ENOBUFS, errno
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from linux_netlink cimport NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, is_of_kernel, nlmsghdr, sockaddr_nl
from sys_socket cimport (
    AF_NETLINK, MSG_DONTWAIT, MSG_TRUNC, SOCK_CLOEXEC, SOCK_RAW, connect, recvfrom, send, sockaddr, socket, socklen_t,
)


cdef int netquery_open(netquery_t *self, int protocol) noexcept nogil:
    cdef int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
    return netquery_adopt(self, fd if fd >= 0 else -errno)


cdef int netquery_adopt(netquery_t *self, int fd) noexcept nogil:
    cdef sockaddr_nl kernel
    cdef int error
    self.seq = 0
    self.spoofed = 0
    self.fd = max(fd, -1)
    if fd < 0:
        return fd
    # A socket connected to the kernel (port 0) refuses datagrams from processes.
    memset(&kernel, 0, sizeof(kernel))
    kernel.nl_family = AF_NETLINK
    if connect(self.fd, <const sockaddr *>&kernel, sizeof(kernel)) < 0:
        error = errno
        netquery_close(self)
        return -error
    return 0


cdef void netquery_close(netquery_t *self) noexcept nogil:
    if self.fd >= 0:
        close(self.fd)
        self.fd = -1


cdef int netquery_request(netquery_t *self, nlmsghdr *request) noexcept nogil:
    self.seq += 1
    request.nlmsg_seq = self.seq
    while send(self.fd, request, request.nlmsg_len, 0) < 0:
        if errno != EINTR:
            return -errno
    return 0


cdef ssize_t netquery_receive(netquery_t *self, uint8_t *buffer) noexcept nogil:
    cdef sockaddr_nl sender
    cdef socklen_t length
    cdef ssize_t got
    cdef bint overrun = False
    while True:
        length = sizeof(sender)
        got = recvfrom(self.fd, buffer, NETQUERY_SIZE, MSG_DONTWAIT | MSG_TRUNC, <sockaddr *>&sender, &length)
        if got >= 0 and not is_of_kernel(&sender, length):
            self.spoofed += 1
            continue
        if got > NETQUERY_SIZE:
            return -EBADMSG
        if got >= 0:
            return got
        if errno == EINTR:
            continue
        # The kernel reports an overrun once; datagrams queued before it, perhaps the reply, are still there.
        if errno == ENOBUFS and not overrun:
            overrun = True
            continue
        return -errno


cdef int netquery_finish(netquery_t *self, uint8_t *buffer) noexcept nogil:
    """Read the rest of a dump that was given up; until then the kernel refuses another with EBUSY. 0 or -errno."""
    cdef ssize_t got = 0
    while got >= 0 or got == -EBADMSG:
        got = netquery_receive(self, buffer)
    return 0 if got == -EAGAIN else <int>got


cdef int netquery_dump(netquery_t *self, nlmsghdr *request, netquery_each_t each, void *context,
                       bint *changed) noexcept nogil:
    cdef uint8_t buffer[NETQUERY_SIZE]
    cdef nlmsghdr header
    cdef int32_t error
    cdef const uint8_t *at
    cdef size_t left, step
    cdef ssize_t got
    cdef int failed = 0
    cdef int rc = netquery_finish(self, buffer)
    if rc == 0:
        rc = netquery_request(self, request)
    if rc < 0:
        return rc
    while True:
        got = netquery_receive(self, buffer)
        if got < 0:
            return <int>got
        at = buffer
        left = got
        while left >= sizeof(header):
            memcpy(&header, at, sizeof(header))
            if header.nlmsg_len < sizeof(header) or header.nlmsg_len > left:
                return -EBADMSG
            if header.nlmsg_seq == self.seq:
                if header.nlmsg_flags & NLM_F_DUMP_INTR:
                    changed[0] = True
                if header.nlmsg_type == NLMSG_DONE:
                    if header.nlmsg_len >= sizeof(header) + sizeof(error):
                        memcpy(&error, at + sizeof(header), sizeof(error))
                        failed = failed or min(0, error)    # the kernel could not go on
                    return failed
                if header.nlmsg_type == NLMSG_ERROR:
                    if header.nlmsg_len < sizeof(header) + sizeof(error):
                        return -EBADMSG
                    memcpy(&error, at + sizeof(header), sizeof(error))
                    return error if error < 0 else -EBADMSG
                # After an error, still read the dump to its end: the kernel begins no other before.
                if failed == 0:
                    failed = min(0, each(header.nlmsg_type, at, header.nlmsg_len, context))
                # A user who adds objects faster than we read them would keep us reading forever.
                if failed == -E2BIG:
                    netquery_close(self)
                    return failed
            step = (<size_t>header.nlmsg_len + 3) & ~(<size_t>3)
            if step >= left:
                break
            at += step
            left -= step
