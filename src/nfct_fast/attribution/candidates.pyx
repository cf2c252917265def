"""Which of a port's sockets can be the one that is meant.

An unconnected UDP socket shares its port with all others bound to it (SO_REUSEADDR, SO_REUSEPORT): each may send to anybody,
even if it is connected elsewhere. What comes in goes to the one that fits best, as the kernel scores them
(compute_score() in net/ipv4/udp.c and net/ipv4/inet_hashtables.c).
"""
from nfct_fast.namespaces.direction cimport is_multicast
from nfct_fast.sockets.diag_message cimport DIAG_WILD
from nfct_fast.sockets.socket_info cimport SOCK_COOKIE, SOCK_PROTOCOL


cdef bint competes(const diag_match_t *one, const diag_match_t *own, const tuple_t *end,
                   bint originator) noexcept nogil:
    # Any socket of the port may have sent. Incoming packets go to the best fit: a socket bound to the device before others,
    # then by family and address. A multicast packet goes to all members of the group.
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
                         bint *there) noexcept nogil:
    cdef diag_match_t mine
    cdef int i, kept = 0
    there[0] = False
    for i in range(count):
        if same_socket(&found[i].sock, own):
            mine = found[i]
            mine.sock.kind = own.kind
            there[0] = True
    for i in range(count):
        if there[0] and not same_socket(&found[i].sock, own) and not competes(&found[i], &mine, end, originator):
            continue
        # A table that changes while it is read may show a row twice.
        if is_among(&found[i].sock, found, kept):
            continue
        found[kept] = found[i]
        kept += 1
    return kept
