"""The socket behind a tuple, as every source of such answers gives it."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SOCK_UID = 1        # uid is known; the kernel's 0 for TIME_WAIT and its like is not
    SOCK_COOKIE = 2
    SOCK_CGROUP = 4

cdef enum:
    SOCK_EXACT = 1      # the socket is bound to this very tuple
    SOCK_LISTENER = 2   # the listener a connection to this tuple belongs to
    SOCK_WILDCARD = 3   # an unconnected socket that receives and sends for this tuple
    SOCK_PROTOCOL = 4   # a raw socket: all there is to know it by is the IP protocol

ctypedef struct socket_info_t:
    uint64_t inode      # 0: unknown (orphaned, TIME_WAIT, ...)
    uint64_t cookie
    uint64_t cgroup_id
    uint32_t uid
    uint8_t has         # SOCK_UID | SOCK_COOKIE | SOCK_CGROUP
    uint8_t kind        # SOCK_EXACT, SOCK_LISTENER, SOCK_WILDCARD or SOCK_PROTOCOL
    uint8_t state       # TCP_ESTABLISHED, ... as in the kernel
    uint8_t ambiguous   # several sockets answer to this tuple (SO_REUSEPORT); this is one of them
