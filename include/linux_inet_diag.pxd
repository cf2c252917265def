"""Requests and replies of sock_diag: <linux/sock_diag.h>, <linux/inet_diag.h>."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<linux/sock_diag.h>" nogil:
    enum:
        SOCK_DIAG_BY_FAMILY

cdef extern from "<linux/inet_diag.h>" nogil:
    """
    #define INET_DIAG_CGROUP_ID 21    /* since Linux 5.7; an enumerator, which #ifndef does not see */
    """
    enum:
        INET_DIAG_NOCOOKIE
        INET_DIAG_SKV6ONLY
        INET_DIAG_CGROUP_ID

    struct inet_diag_sockid:
        uint16_t idiag_sport
        uint16_t idiag_dport
        uint32_t idiag_src[4]
        uint32_t idiag_dst[4]
        uint32_t idiag_if
        uint32_t idiag_cookie[2]

    struct inet_diag_req_v2:
        uint8_t sdiag_family
        uint8_t sdiag_protocol
        uint8_t idiag_ext
        uint32_t idiag_states
        inet_diag_sockid id

    struct inet_diag_msg:
        uint8_t idiag_family
        uint8_t idiag_state
        inet_diag_sockid id
        uint32_t idiag_uid
        uint32_t idiag_inode
