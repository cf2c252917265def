"""Internet protocol numbers, TCP states and byte order: <netinet/in.h>, <netinet/tcp.h>, <arpa/inet.h>."""
from libc.stdint cimport uint16_t, uint32_t

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_ICMP
        IPPROTO_TCP
        IPPROTO_UDP
        IPPROTO_DCCP
        IPPROTO_ICMPV6
        IPPROTO_SCTP
        IPPROTO_UDPLITE
        IPPROTO_RAW

    ctypedef unsigned int socklen_t

    uint16_t ntohs(uint16_t)
    uint16_t htons(uint16_t)
    uint32_t htonl(uint32_t)

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_ESTABLISHED
        TCP_SYN_RECV
        TCP_CLOSE_WAIT
        TCP_LISTEN

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *address, char *out, socklen_t size)
