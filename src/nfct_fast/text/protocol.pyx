"""Names of an address family and protocol: "ipv4/tcp", or with its number for a protocol without a name, "ipv6/253"."""
from libc.stdint cimport uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen
from sys_socket cimport AF_INET, AF_INET6

FAMILIES = {"ipv4": AF_INET, "ipv6": AF_INET6}

cdef extern from "nfct_fast/text/protocol_names.h" nogil:
    const char *const nfct_fast_protocol_names[256]


cdef int protocol_write(uint8_t family, uint8_t proto, char *out) noexcept nogil:
    cdef const char *name = nfct_fast_protocol_names[proto]
    cdef int length
    memcpy(out, b"ipv6/" if family == AF_INET6 else b"ipv4/", 5)
    if name == NULL:
        return 5 + snprintf(out + 5, 27, b"%u", <unsigned int>proto)
    length = <int>strlen(name)
    memcpy(out + 5, name, length)
    return 5 + length


def protocol_name(int family, int proto) -> str:
    """Return the name of an address family (AF_*) and an IP protocol number (0 to 255): "ipv4/tcp", "ipv6/253"."""
    cdef char out[32]
    cdef int length
    if family not in (AF_INET, AF_INET6) or not 0 <= proto <= 255:
        raise ValueError(f"no such family and protocol: {family}, {proto}")
    length = protocol_write(family, proto, out)
    return out[:length].decode("ascii")
