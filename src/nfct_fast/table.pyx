"""The conntrack table of one network namespace, read entry by entry."""
cimport cython
from libc.errno cimport EINTR, EIO, ETIMEDOUT, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from linux_netlink cimport (IPCTNL_MSG_CT_GET, NETLINK_NETFILTER, NFNL_SUBSYS_CTNETLINK, NLM_F_DUMP, NLM_F_REQUEST,
                            nlmsghdr)
from sys_socket cimport POLLIN, poll, pollfd, send

cdef enum:
    # A dump's datagrams are as large as the buffer of the first recvmsg, up to 32 KiB (netlink_dump in the kernel).
    DATAGRAM = 32768
    ROOM = DATAGRAM // 88 + 1    # no entry is shorter than 88 bytes
    PATIENCE_MS = 5000

cdef struct request_t:
    nlmsghdr header
    unsigned char nfgenmsg[4]    # family AF_UNSPEC, version NFNETLINK_V0, resource 0: all zero


@cython.final
@cython.auto_pickle(False)
cdef class Table:
    """The table of the namespace of the thread that makes it. OSError if there is none."""

    def __cinit__(self):
        self.socket = NetlinkSocket(NETLINK_NETFILTER, 1, DATAGRAM)
        self.decoder = FlowDecoder()
        self.flows = <flow_t *>calloc(ROOM, sizeof(flow_t))
        if self.flows == NULL:
            raise MemoryError("table")

    def __dealloc__(self):
        free(self.flows)

    cdef int begin(self) noexcept nogil:
        """Ask for all entries, of both families; 0 or -errno. Each must then be fetched with next(), to the end."""
        cdef request_t request
        memset(&request, 0, sizeof(request))
        request.header.nlmsg_len = sizeof(request)
        request.header.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
        request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP
        self.ended = False
        if send(self.socket.fd, &request, sizeof(request), 0) != sizeof(request):
            return -errno
        return 0

    cdef int next(self) noexcept nogil:
        """The next entries into self.flows: their number, 0 at the end, or -errno. Waits for the kernel, 5 s at most."""
        cdef pollfd ready
        cdef size_t length = 0
        cdef const void *data
        cdef int count
        while not self.ended:
            count = self.socket.receive(1)
            if count < 0:
                return count
            if count == 0:
                ready.fd = self.socket.fd
                ready.events = POLLIN
                count = poll(&ready, 1, PATIENCE_MS)
                if count == 0:
                    return -ETIMEDOUT
                if count < 0 and errno != EINTR:
                    return -errno
                continue
            data = self.socket.datagram(0, &length)
            if data == NULL:
                return -EIO
            count = self.decoder.decode(data, length, self.flows, ROOM, 0, 0)
            self.ended = self.decoder.ended
            if count != 0:
                return count
        return 0
