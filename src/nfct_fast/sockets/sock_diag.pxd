"""Find the socket of a tuple with one exact sock_diag request."""
from libc.stdint cimport uint8_t, uint32_t

from nfct_fast.sockets.diag_message cimport diag_match_t
from nfct_fast.events.flow cimport tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_t
from nfct_fast.sockets.socket_info cimport socket_info_t

# In all of these `diag` is open to NETLINK_SOCK_DIAG, and no call waits.

# Find the socket of a tuple, or the listener that would accept a connection to its local end. tuple: as seen from the
# socket, so src is the local end. ifindex: the device the socket may be bound to, 0 for none. Return 1 if there is one,
# 0 if not, -EPROTONOSUPPORT for protocols that sock_diag cannot look up exactly (ICMP, raw, SCTP), or another -errno.
cdef int diag_lookup(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex, socket_info_t *out) noexcept nogil
cdef int diag_lookup_listener(netquery_t *diag, const tuple_t *tuple, uint32_t ifindex,
                              socket_info_t *out) noexcept nogil

# Find every socket that could stand at the local end of a UDP tuple, or listen there for a TCP one. Write up to `room`
# of them to `out` and return how many there are, or -errno. The kernel walks through its whole table for this.
cdef int diag_survey(netquery_t *diag, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil

cdef enum:
    PORT_BYTES = 8192        # size of a bitmap with one bit for each port

# Set a bit in `taken` for each local port that has a listening socket (TCP) or any socket (UDP), whatever its address.
# A second bitmap, PORT_BYTES further on, marks the ports that have several. Takes 1 us for each socket. Return 0,
# -ENOSPC if there are more than `max_sockets`, or another -errno.
cdef int diag_ports(netquery_t *diag, uint8_t proto, uint8_t *taken, int max_sockets) noexcept nogil
