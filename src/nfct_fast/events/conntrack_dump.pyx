"""Dump the conntrack table of one network namespace.

A dump is a reply in many parts. The table may change meanwhile, which the kernel reports. Parts of an earlier dump that
was given up may still be queued, so each dump has a sequence number of its own.
"""
cimport cython
from libc.errno cimport EAGAIN, EBUSY, EINTR, EIO, ENOBUFS, ETIMEDOUT, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from linux_netlink cimport (CTA_STATS_GLOBAL_ENTRIES, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_GET_STATS, NETLINK_NETFILTER,
                            NFNL_SUBSYS_CTNETLINK, NLM_F_DUMP, NLM_F_REQUEST, nlattr, nlmsghdr, sockaddr_nl)
from sys_socket cimport AF_NETLINK, MSG_DONTWAIT, POLLIN, poll, pollfd, recv, sendto, sockaddr

cdef enum:
    # A dump's datagrams are as large as the buffer of the first recvmsg, up to 32 KiB (netlink_dump in the kernel).
    DATAGRAM = 32768
    ROOM = DATAGRAM // 88 + 1    # no entry is shorter than 88 bytes
    TIMEOUT_MS = 5000
    TRIES = 3                    # dumps made at most if changes to the table make the kernel skip entries

cdef struct request_t:
    nlmsghdr header
    unsigned char nfgenmsg[4]    # family AF_UNSPEC, version NFNETLINK_V0, resource 0: all zero

# The reply to IPCTNL_MSG_CT_GET_STATS.
cdef struct entries_t:
    nlmsghdr header
    unsigned char nfgenmsg[4]
    nlattr attribute             # CTA_STATS_GLOBAL_ENTRIES
    uint32_t entries             # big-endian


@cython.final
@cython.auto_pickle(False)
cdef class ConntrackDump:
    """The conntrack table of a network namespace. Dumping it needs CAP_NET_ADMIN.

    Args:
        fd: A netfilter netlink socket of the namespace, which this object takes over; -1 for the calling thread's
            namespace.

    Raises:
        OSError: The kernel has no conntrack.
    """

    def __cinit__(self, int fd=-1):
        self.socket = NetlinkSocket(NETLINK_NETFILTER, 1, DATAGRAM, fd=fd)
        self.decoder = FlowDecoder()
        self.ended = True
        self.flows = <flow_t *>calloc(ROOM, sizeof(flow_t))
        if self.flows == NULL:
            raise MemoryError("conntrack dump")

    def __dealloc__(self):
        free(self.flows)

    cdef int begin(self) noexcept nogil:
        self.tries = TRIES
        return self._restart()

    cdef int _request(self, int message, int flags) noexcept nogil:
        cdef request_t request
        cdef sockaddr_nl kernel
        self.sequence += 1
        memset(&request, 0, sizeof(request))
        request.header.nlmsg_len = sizeof(request)
        request.header.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | message
        request.header.nlmsg_flags = NLM_F_REQUEST | flags
        request.header.nlmsg_seq = self.sequence
        # Give the kernel's address explicitly. Otherwise the process that made the socket must be privileged as well
        # (__netlink_ns_capable).
        memset(&kernel, 0, sizeof(kernel))
        kernel.nl_family = AF_NETLINK
        if sendto(self.socket.fd, &request, sizeof(request), 0, <sockaddr *>&kernel, sizeof(kernel)) != sizeof(request):
            return -errno
        return 0

    cdef bint _is_empty(self) noexcept nogil:
        """Return whether the table is known to have no entries, like most tables.

        This saves a dump, which walks the hash buckets of all namespaces: 15 ms for 262,144 buckets.
        """
        cdef entries_t answer
        cdef pollfd ready
        if self._request(IPCTNL_MSG_CT_GET_STATS, 0) < 0:
            return False
        while True:
            ready.fd = self.socket.fd
            ready.events = POLLIN
            if poll(&ready, 1, TIMEOUT_MS) <= 0:
                return False
            memset(&answer, 0xff, sizeof(answer))
            if recv(self.socket.fd, &answer, sizeof(answer), MSG_DONTWAIT) < <ssize_t>sizeof(answer):
                return False
            if answer.header.nlmsg_seq == self.sequence:
                return (answer.header.nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS)
                        and answer.attribute.nla_type == CTA_STATS_GLOBAL_ENTRIES and answer.entries == 0)

    cdef int _restart(self) noexcept nogil:
        cdef int count
        cdef int result
        self.tries -= 1
        # The kernel refuses a second dump with EBUSY, so first read the rest of one that was given up. The kernel
        # continues a dump only within recvmmsg(): if nothing is queued, nothing more will come.
        while not self.ended:
            count = self.socket.receive(1)
            if count < 0 and count != -ENOBUFS:
                return count
            self.ended = count == 0
        self.interrupted = False
        if self._is_empty():
            return 0
        result = self._request(IPCTNL_MSG_CT_GET, NLM_F_DUMP)
        self.ended = result < 0
        return result

    cdef const void *_receive(self, size_t *length, int *result) noexcept nogil:
        """Receive the next part of the dump. NULL with -errno in *result if there is none. Waits up to 5 s."""
        cdef pollfd ready
        cdef const void *data
        cdef int count
        while True:
            count = self.socket.receive(1)
            if count == 0:
                ready.fd = self.socket.fd
                ready.events = POLLIN
                count = poll(&ready, 1, TIMEOUT_MS)
                if count == 0:
                    count = -ETIMEDOUT
                elif count > 0 or errno == EINTR:
                    continue
                else:
                    count = -errno
            if count < 0:
                result[0] = count
                return NULL
            data = self.socket.datagram(0, length)
            if data == NULL:
                result[0] = -EIO
                return NULL
            if length[0] >= sizeof(nlmsghdr) and (<const nlmsghdr *>data).nlmsg_seq == self.sequence:
                return data

    cdef int next(self) noexcept nogil:
        # If entries may be missing, because the kernel says so or a part was lost, dump everything again. Some entries
        # are then returned twice. -EAGAIN if entries may still be missing after TRIES dumps.
        cdef int result = self._next()
        while result == 0 and self.interrupted or result == -EIO or result == -ENOBUFS or result == -EBUSY:
            result = self._restart() if self.tries else -EAGAIN
            if result == 0:
                result = self._next()
        return result

    cdef int _next(self) noexcept nogil:
        cdef size_t length = 0
        cdef const void *data
        cdef int result = 0
        while not self.ended:
            data = self._receive(&length, &result)
            if data == NULL:
                return result
            result = self.decoder.decode(data, length, self.flows, ROOM, 0, 0)
            self.ended = self.decoder.ended
            self.interrupted = self.interrupted or self.decoder.interrupted
            if result != 0:
                return result
        return 0
