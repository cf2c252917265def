"""Questions to the kernel over netlink, and its answers."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from linux_netlink cimport nlmsghdr

cdef enum:
    NETQUERY_SIZE = 32768   # a dump comes in parts as large as what recv offers, but for this at most

# It stays in the network namespace it was opened in. One question at a time.
ctypedef struct netquery_t:
    int fd
    uint32_t seq            # of the last question
    uint64_t foreign        # datagrams that the kernel did not send

# All of these return 0, or a count, or -errno, and never wait: the kernel answers while send() is still in it, and a
# dump goes on inside recv().
cdef int netquery_open(netquery_t *self, int protocol) noexcept nogil
# With a socket that is its own then, or the -errno of there being none.
cdef int netquery_adopt(netquery_t *self, int fd) noexcept nogil
cdef void netquery_close(netquery_t *self) noexcept nogil
cdef int netquery_ask(netquery_t *self, nlmsghdr *request) noexcept nogil    # with a sequence number of its own

# Bytes of the next part of the answer, of NETQUERY_SIZE at buffer; -EAGAIN: there is none.
cdef ssize_t netquery_receive(netquery_t *self, uint8_t *buffer) noexcept nogil

# One message of an answer, with its header; 0 or -errno.
ctypedef int (*netquery_each_t)(uint16_t type, const uint8_t *message, size_t size, void *context) noexcept nogil

# Asks for a dump and gives each message of it to `each`; the first -errno of that, if any, when it has been read to its
# end, but for -E2BIG: that ends it at once, and closes the socket, as another may not begin before. *changed is set if the kernel says that what it tells of changed in between.
cdef int netquery_dump(netquery_t *self, nlmsghdr *request, netquery_each_t each, void *context,
                       bint *changed) noexcept nogil
