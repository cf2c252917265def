"""The socket behind a tuple, in the form that sock_diag and /proc/net look-ups share."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SOCK_UID = 1        # uid is known; the uid 0 that the kernel reports for TIME_WAIT and the like does not count
    SOCK_COOKIE = 2     # cookie is known
    SOCK_CGROUP = 4     # cgroup_id is known

cdef enum:
    SOCK_EXACT = 1      # the socket is bound and connected to exactly this tuple
    SOCK_LISTENER = 2   # the listener that accepts connections to this tuple
    SOCK_WILDCARD = 3   # an unconnected socket that receives and sends for this tuple
    SOCK_PROTOCOL = 4   # a raw socket, which only the IP protocol identifies

ctypedef struct socket_info_t:
    uint64_t inode      # inode number in sockfs; 0: unknown (orphaned, TIME_WAIT, not accepted yet)
    uint64_t cookie     # SO_COOKIE, not reused before a reboot
    uint64_t cgroup_id  # id of the cgroup (v2) in which the socket was created
    uint32_t uid        # user who owns the socket
    uint8_t has         # which of the above are known: SOCK_UID | SOCK_COOKIE | SOCK_CGROUP
    uint8_t kind        # SOCK_EXACT, SOCK_LISTENER, SOCK_WILDCARD or SOCK_PROTOCOL
    uint8_t state       # TCP_ESTABLISHED etc., as in the kernel's net/tcp_states.h
    uint8_t ambiguous   # several sockets match the tuple equally well (SO_REUSEPORT), and this is one of them
