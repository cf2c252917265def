"""Functions on the tuples of a flow_t."""
from libc.string cimport memcpy, memset
from sys_socket cimport AF_INET, AF_INET6

import ipaddress


cdef void tuple_invert(const tuple_t *tuple, tuple_t *out) noexcept nogil:
    out[0] = tuple[0]
    memcpy(out.src, tuple.dst, sizeof(out.src))
    memcpy(out.dst, tuple.src, sizeof(out.dst))
    out.sport = tuple.dport
    out.dport = tuple.sport


cdef int tuple_set(tuple_t *out, int proto, object src, int sport, object dst, int dport) except -1:
    cdef bytes local = ipaddress.ip_address(src).packed
    cdef bytes remote = ipaddress.ip_address(dst).packed
    if len(local) != len(remote):
        raise ValueError(f"{src} and {dst} are not of one family")
    if not 0 <= sport <= 65535 or not 0 <= dport <= 65535 or not 0 <= proto <= 255:
        raise ValueError("port or protocol out of range")
    memset(out, 0, sizeof(out[0]))
    memcpy(out.src, <const uint8_t *>local, len(local))
    memcpy(out.dst, <const uint8_t *>remote, len(remote))
    out.family = AF_INET if len(local) == 4 else AF_INET6
    out.proto = proto
    out.sport = sport
    out.dport = dport
    return 0
