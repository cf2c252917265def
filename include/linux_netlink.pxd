"""Netlink as the kernel's UAPI headers have it."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<linux/netlink.h>" nogil:
    enum:
        AF_NETLINK
        NETLINK_NETFILTER
        NETLINK_ADD_MEMBERSHIP
        NETLINK_BROADCAST_ERROR
        NETLINK_NO_ENOBUFS
        SOL_NETLINK
        NLM_F_REQUEST
        NLM_F_DUMP
        NLM_F_ACK
        NLM_F_CREATE
        NLM_F_EXCL
        NLMSG_ERROR
        NLMSG_DONE

    struct sockaddr_nl:
        unsigned short nl_family
        uint32_t nl_pid
        uint32_t nl_groups

    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
        uint32_t nlmsg_pid

    struct nlmsgerr:
        int error
        nlmsghdr msg

    size_t NLMSG_LENGTH(size_t)
    void *NLMSG_DATA(const nlmsghdr *)

cdef extern from "<linux/netfilter/nfnetlink.h>" nogil:
    enum:
        NFNLGRP_CONNTRACK_NEW
        NFNLGRP_CONNTRACK_UPDATE
        NFNLGRP_CONNTRACK_DESTROY
        NFNL_SUBSYS_CTNETLINK
        NFNETLINK_V0

    struct nfgenmsg:
        uint8_t nfgen_family
        uint8_t version
        uint16_t res_id

    int NFNL_SUBSYS_ID(int)
    int NFNL_MSG_TYPE(int)

cdef extern from "<linux/netfilter/nfnetlink_conntrack.h>" nogil:
    enum:
        IPCTNL_MSG_CT_NEW
        IPCTNL_MSG_CT_GET
        IPCTNL_MSG_CT_DELETE
        CTA_TUPLE_ORIG
        CTA_TUPLE_PROTO
        CTA_PROTO_NUM

cdef extern from "<linux/sock_diag.h>" nogil:
    enum:
        SK_MEMINFO_RCVBUF
        SK_MEMINFO_DROPS
        SK_MEMINFO_VARS
