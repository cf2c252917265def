"""Requests to the kernel over netlink, and its replies."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from linux_netlink cimport nlmsghdr

cdef enum:
    NETQUERY_SIZE = 32768   # bytes of a receive buffer: the kernel sends no larger part of a dump

# A socket in the network namespace where it was opened. One request at a time.
ctypedef struct netquery_t:
    int fd
    uint32_t seq            # sequence number of the last request
    uint64_t spoofed        # datagrams ignored because a process sent them, not the kernel

# All of these return 0, or a count, or -errno, and never wait: the kernel queues the reply within send(), and continues
# a dump within recv().
cdef int netquery_open(netquery_t *self, int protocol) noexcept nogil
# The same with an existing socket, which belongs to `self` from now on; or with the -errno why it could not be made,
# which is returned.
cdef int netquery_adopt(netquery_t *self, int fd) noexcept nogil
cdef void netquery_close(netquery_t *self) noexcept nogil
# Send a request, with the next sequence number.
cdef int netquery_request(netquery_t *self, nlmsghdr *request) noexcept nogil

# Receive the next part of the reply into a buffer of NETQUERY_SIZE bytes. Return its size; -EAGAIN if there is no more.
cdef ssize_t netquery_receive(netquery_t *self, uint8_t *buffer) noexcept nogil

# Called with one message of a reply, with its header. 0 or -errno.
ctypedef int (*netquery_each_t)(uint16_t type, const uint8_t *message, size_t size, void *context) noexcept nogil

# Request a dump and call `each` with every message of it. If `each` returns -errno, read the dump to its end without
# further calls and return the first one. Only -E2BIG ends the dump at once, and closes the socket, because the kernel
# would not begin another dump on it. Set *changed if the kernel reports that objects changed during the dump.
cdef int netquery_dump(netquery_t *self, nlmsghdr *request, netquery_each_t each, void *context,
                       bint *changed) noexcept nogil
