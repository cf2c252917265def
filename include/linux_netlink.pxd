from libc.stdint cimport uint16_t, uint32_t

cdef extern from "<linux/netlink.h>" nogil:
    enum:
        NETLINK_ROUTE
        NETLINK_SOCK_DIAG
        NLM_F_REQUEST
        NLM_F_DUMP
        NLM_F_DUMP_INTR
        NLMSG_ERROR
        NLMSG_DONE
        NLA_TYPE_MASK
        NETLINK_GET_STRICT_CHK

    struct sockaddr_nl:
        uint16_t nl_family
        uint32_t nl_pid
        uint32_t nl_groups

    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
        uint32_t nlmsg_pid

    struct nlattr:
        uint16_t nla_len
        uint16_t nla_type
