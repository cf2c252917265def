"""Build sock_diag requests for one tuple, and match the replies against it."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from linux_inet_diag cimport inet_diag_req_v2
from linux_netlink cimport nlmsghdr

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_info cimport socket_info_t

ctypedef struct diag_request_t:
    nlmsghdr header
    inet_diag_req_v2 body

# A socket from a reply, and how well its addresses fit the tuple that was asked for.
ctypedef struct diag_match_t:
    socket_info_t sock
    uint32_t ifindex        # index of the device that the socket is bound to, or 0
    uint8_t local           # how the socket's local address fits: DIAG_EQUAL, DIAG_WILD or DIAG_GROUP
    uint8_t remote          # how the socket's remote address fits: DIAG_EQUAL, DIAG_WILD, or DIAG_OTHER (another peer)
    uint8_t family          # family of the socket: AF_INET or AF_INET6

cdef enum:
    DIAG_OTHER = 0          # a different address
    DIAG_EQUAL = 1          # exactly this address
    DIAG_WILD = 2           # the wildcard address
    DIAG_GROUP = 3          # a multicast group: the socket receives packets to it, and sends from any address

# Whether sock_diag can look up one socket of this protocol: TCP, UDP, UDP-Lite.
cdef bint diag_has_ports(uint8_t proto) noexcept nogil

# Build the request for one tuple, or for a dump of all sockets at its local port. The sender sets the sequence number.
cdef void diag_request(diag_request_t *out, const tuple_t *tuple, uint32_t ifindex) noexcept nogil
cdef void diag_request_dump(diag_request_t *out, const tuple_t *tuple, uint8_t family,
                            uint32_t states) noexcept nogil

# Compare the socket in one message of `size` bytes with the tuple. Return 1 with *out filled if its local end could be
# the tuple's, 0 if it has nothing to do with the tuple, -EBADMSG if the message is malformed.
cdef int diag_match(const uint8_t *data, size_t size, const tuple_t *tuple, diag_match_t *out) noexcept nogil

# Return the local port of the socket in one message, 0 if the message is malformed.
cdef uint16_t diag_port(const uint8_t *data, size_t size) noexcept nogil

# Whether the socket in the reply to an exact request is the tuple's. Return 1 with sock.kind set, or 0.
cdef int diag_accept(diag_match_t *match, const tuple_t *tuple) noexcept nogil

# Parse the reply to an exact request. Return 1 if there is such a socket, 0 if not, -EAGAIN if nothing in `data`
# replies to request number `seq`, or the kernel's -errno.
cdef int diag_reply(const uint8_t *data, size_t size, uint32_t seq, const tuple_t *tuple,
                    diag_match_t *out) noexcept nogil
