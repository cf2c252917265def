"""Which socket a tuple belongs to, by one exact sock_diag request."""
from libc.stdint cimport uint32_t

from nfct_fast.diagmsg cimport diag_match_t
from nfct_fast.flow cimport tuple_t
from nfct_fast.sock cimport sock_t

# A sock_diag socket stays in the network namespace it was opened in. One thread at a time.
ctypedef struct diag_t:
    int fd
    uint32_t seq

# All of these return without waiting: the kernel answers inside send(). tuple is seen from the socket: src is the
# local end. ifindex: the device the socket may be bound to, 0 for none. 1 found, 0 none, -EPROTONOSUPPORT for
# protocols that sock_diag cannot answer for exactly (ICMP, raw, SCTP), other -errno.
cdef int diag_open(diag_t *diag) noexcept nogil
cdef void diag_close(diag_t *diag) noexcept nogil
cdef int diag_lookup(diag_t *diag, const tuple_t *tuple, uint32_t ifindex, sock_t *out) noexcept nogil
cdef int diag_lookup_listener(diag_t *diag, const tuple_t *tuple, uint32_t ifindex, sock_t *out) noexcept nogil

# Every socket that could stand at the local end of a UDP tuple, or listen for a TCP one: up to room of them in out,
# the number there are returned. A walk over the kernel's table, not a look-up.
cdef int diag_survey(diag_t *diag, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil

# Sets found.ambiguous by a survey where found is not SOCK_EXACT; diag_lookup alone leaves it 0. 0, 1 or -errno (then
# ambiguous is 1).
cdef int diag_check(diag_t *diag, const tuple_t *tuple, sock_t *found) noexcept nogil


# The methods check for ambiguity; lookup_unchecked does not, and is the cheap one for unconnected UDP and listeners.
cdef class SockDiag:
    cdef diag_t diag
    cdef int lookup_unchecked(self, const tuple_t *tuple, sock_t *out) noexcept nogil
    cdef int lookup(self, const tuple_t *tuple, sock_t *out) noexcept nogil
    cdef int lookup_on(self, const tuple_t *tuple, uint32_t ifindex, sock_t *out) noexcept nogil
    cdef int lookup_listener(self, const tuple_t *tuple, sock_t *out) noexcept nogil
    cdef int survey(self, const tuple_t *tuple, diag_match_t *out, int room) noexcept nogil


# For Python code: addresses as ipaddress takes them, a socket as a dict whose unknown values are None.
cdef int set_tuple(tuple_t *out, object src, int sport, object dst, int dport, int proto) except -1
cdef object sock_dict(const sock_t *sock)
