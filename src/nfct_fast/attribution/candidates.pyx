"""Determine which of a port's sockets a flow can belong to.

An unconnected UDP socket shares its port with all others bound to it (SO_REUSEADDR, SO_REUSEPORT), and each of them may
send to any peer, even one that is connected to another. An incoming packet goes to the socket with the highest score
(compute_score() in net/ipv4/udp.c and net/ipv4/inet_hashtables.c).
"""
from libc.string cimport memset

from nfct_fast.namespaces.direction cimport is_multicast
from nfct_fast.sockets.diag_message cimport DIAG_WILD
from nfct_fast.sockets.socket_info cimport SOCK_COOKIE, SOCK_PROTOCOL


cdef bint competes(const diag_match_t *one, const diag_match_t *own, const tuple_t *end,
                   bint originator) noexcept nogil:
    # Any socket of the port may have sent. The kernel scores a socket bound to the device above others, then compares
    # family and address. A multicast packet goes to all sockets that joined the group.
    if originator or own.sock.kind == SOCK_PROTOCOL or one.ifindex or is_multicast(&end.src[0], end.family):
        return True
    return one.remote == DIAG_WILD and one.local == own.local and one.family == own.family


cdef bint same_socket(const socket_info_t *a, const socket_info_t *b) noexcept nogil:
    if a.has & b.has & SOCK_COOKIE:
        return a.cookie == b.cookie
    return a.inode == b.inode


cdef bint is_among(const socket_info_t *sock, const diag_match_t *others, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        if sock.inode and same_socket(&others[i].sock, sock):
            return True
    return False


cdef int candidates_keep(diag_match_t *found, int count, const socket_info_t *own, const tuple_t *end, bint originator,
                         bint *own_found) noexcept nogil:
    cdef diag_match_t own_match
    cdef int i, kept = 0
    memset(&own_match, 0, sizeof(own_match))
    own_found[0] = False
    for i in range(count):
        if same_socket(&found[i].sock, own):
            own_match = found[i]
            own_match.sock.kind = own.kind
            own_found[0] = True
    for i in range(count):
        if (own_found[0] and not same_socket(&found[i].sock, own)
                and not competes(&found[i], &own_match, end, originator)):
            continue
        # A table that changes while it is read may list a socket twice.
        if is_among(&found[i].sock, found, kept):
            continue
        found[kept] = found[i]
        kept += 1
    return kept
