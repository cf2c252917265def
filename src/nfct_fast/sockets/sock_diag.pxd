"""Which socket a tuple belongs to, by one exact sock_diag request."""
from libc.stdint cimport uint8_t, uint32_t

from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_t
from nfct_fast.sockets.socket_info cimport socket_info_t

# diag is open to NETLINK_SOCK_DIAG. All of these return without waiting. tuple is seen from the socket: src is the
# local end. ifindex: the device the socket may be bound to, 0 for none. 1 found, 0 none, -EPROTONOSUPPORT for
# protocols that sock_diag cannot answer for exactly (ICMP, raw, SCTP), other -errno.
cdef int diag_lookup(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex, socket_info_t *out) noexcept nogil
cdef int diag_lookup_listener(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex, socket_info_t *out) noexcept nogil

# Every socket that could stand at the local end of a UDP tuple, or listen for a TCP one: up to room of them in out,
# the number there are returned. A walk over the kernel's table, not a look-up.
cdef int diag_survey(netquery_t *diag, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil

cdef enum:
    PORT_BYTES = 8192        # a bit for each port

# Sets a bit in `taken` for each local port on which a socket listens (TCP) or is (UDP), whatever its address, and,
# PORT_BYTES behind it, another where there are several. 0; -ENOSPC: there are more than `most` sockets; other -errno.
# Takes 1 us for each socket.
cdef int diag_ports(netquery_t *diag, uint8_t proto, uint8_t *taken, int most) noexcept nogil
