"""Netlink: <linux/netlink.h>, <linux/netfilter/nfnetlink.h> and related UAPI headers of the kernel."""
from libc.stdint cimport uint16_t, uint32_t

cdef extern from "<linux/netlink.h>" nogil:
    """
    #ifndef NETLINK_GET_STRICT_CHK
    #define NETLINK_GET_STRICT_CHK 12    /* since Linux 4.20 */
    #endif
    /* Whether the kernel sent a datagram: its netlink port is 0, which no process has once it sends (netlink_autobind).
       The check is needed because root in a network namespace may multicast any message to its groups; connecting a
       socket to the kernel keeps out only unicast messages. */
    static inline int is_of_kernel(const struct sockaddr_nl *sender, unsigned int length)
    {
        return length == sizeof(*sender) && sender->nl_pid == 0;
    }
    """
    enum:
        NETLINK_ROUTE
        NETLINK_SOCK_DIAG
        NETLINK_NETFILTER
        NETLINK_ADD_MEMBERSHIP
        NETLINK_DROP_MEMBERSHIP
        NLM_F_REQUEST
        NLM_F_DUMP
        NLM_F_DUMP_INTR
        NLM_F_MULTI
        NLM_F_CREATE
        NLM_F_EXCL
        NLMSG_ERROR
        NLMSG_DONE
        NLA_TYPE_MASK
        NETLINK_GET_STRICT_CHK

    struct sockaddr_nl:
        uint16_t nl_family
        uint32_t nl_pid
        uint32_t nl_groups

    bint is_of_kernel(const sockaddr_nl *sender, unsigned int length)

    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
        uint32_t nlmsg_pid

    struct nlattr:
        uint16_t nla_len
        uint16_t nla_type

cdef extern from "<linux/netfilter/nfnetlink.h>" nogil:
    enum:
        NFNLGRP_CONNTRACK_NEW
        NFNLGRP_CONNTRACK_UPDATE
        NFNLGRP_CONNTRACK_DESTROY
        NFNL_SUBSYS_CTNETLINK

    int NFNL_SUBSYS_ID(int)
    int NFNL_MSG_TYPE(int)

cdef extern from "<linux/netfilter/nfnetlink_conntrack.h>" nogil:
    enum:
        IPCTNL_MSG_CT_NEW
        IPCTNL_MSG_CT_GET
        IPCTNL_MSG_CT_DELETE
        IPCTNL_MSG_CT_GET_STATS
        CTA_STATS_GLOBAL_ENTRIES

cdef extern from "<linux/sock_diag.h>" nogil:
    enum:
        SK_MEMINFO_RMEM_ALLOC
        SK_MEMINFO_DROPS
        SK_MEMINFO_VARS
