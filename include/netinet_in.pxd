cdef extern from "sys/socket.h" nogil:
    enum: AF_INET
    enum: AF_INET6

cdef extern from "netinet/in.h" nogil:
    enum: IPPROTO_ICMP
    enum: IPPROTO_ICMPV6
    enum: IPPROTO_RAW
    enum: IPPROTO_TCP
    enum: IPPROTO_UDP
    enum: IPPROTO_UDPLITE

cdef extern from "netinet/tcp.h" nogil:
    enum: TCP_ESTABLISHED
    enum: TCP_SYN_RECV
    enum: TCP_CLOSE_WAIT
    enum: TCP_LISTEN
