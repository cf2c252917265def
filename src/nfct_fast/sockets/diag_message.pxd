"""sock_diag messages: the request for one tuple, and what a reply says about it."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from linux_inet_diag cimport inet_diag_req_v2
from linux_netlink cimport nlmsghdr

from nfct_fast.events.flow cimport tuple_t
from nfct_fast.sockets.socket_info cimport socket_info_t

ctypedef struct diag_request_t:
    nlmsghdr header
    inet_diag_req_v2 body

# One socket of a reply with what tells it from its rivals.
ctypedef struct diag_match_t:
    socket_info_t sock
    uint32_t ifindex        # the device it is bound to, or 0
    uint8_t local           # DIAG_EQUAL, DIAG_WILD or DIAG_GROUP: how its own address fits
    uint8_t remote          # DIAG_EQUAL, DIAG_WILD, or DIAG_OTHER: connected to somebody else
    uint8_t family

cdef enum:
    DIAG_OTHER = 0
    DIAG_EQUAL = 1
    DIAG_WILD = 2
    DIAG_GROUP = 3          # bound to a multicast group: it receives there and sends from anywhere

cdef bint diag_has_ports(uint8_t proto) noexcept nogil
# Both leave the sequence number to whoever sends it.
cdef void diag_request(diag_request_t *out, const tuple_t *tuple, uint32_t ifindex) noexcept nogil
cdef void diag_request_dump(diag_request_t *out, const tuple_t *tuple, uint8_t family,
                            uint32_t states) noexcept nogil

# One message at data, of which size bytes are there. 1: a socket whose local port is the tuple's, told in *out;
# 0: a socket that has nothing to do with the tuple; -EBADMSG: not a message of the kernel's.
cdef int diag_match(const uint8_t *data, size_t size, const tuple_t *tuple, diag_match_t *out) noexcept nogil

# The local port of the socket in one message; 0: it is none of the kernel's.
cdef uint16_t diag_port(const uint8_t *data, size_t size) noexcept nogil
# Whether the socket of an exact reply is the tuple's: 1 with sock.kind set, or 0.
cdef int diag_accept(diag_match_t *match, const tuple_t *tuple) noexcept nogil

# An exact request's reply. 1 found, 0 none, -EAGAIN: nothing in data answers seq, other -errno: the kernel's.
cdef int diag_reply(const uint8_t *data, size_t size, uint32_t seq, const tuple_t *tuple,
                    diag_match_t *out) noexcept nogil
