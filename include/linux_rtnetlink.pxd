"""Routes, links and ids of network namespaces: <linux/rtnetlink.h>."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<linux/rtnetlink.h>" nogil:
    """
    #include <linux/if_link.h>
    #include <linux/net_namespace.h>
    """
    enum:
        RTM_NEWROUTE
        RTM_DELROUTE
        RTM_GETROUTE
        RTM_NEWLINK
        RTM_GETLINK
        RTM_NEWNSID
        RTM_GETNSID
        RTEXT_FILTER_SKIP_STATS
        IFLA_LINK
        IFLA_MASTER
        IFLA_LINKINFO
        IFLA_INFO_KIND
        IFLA_LINK_NETNSID
        IFLA_EXT_MASK
        NETNSA_NSID
        NETNSA_FD
        RTN_LOCAL
        RTPROT_KERNEL
        RT_TABLE_LOCAL
        RTA_DST
        RTA_OIF
        RTA_GATEWAY
        RTA_MULTIPATH
        RTN_UNICAST
        RTMGRP_LINK
        RTMGRP_IPV4_IFADDR
        RTMGRP_IPV4_ROUTE
        RTMGRP_IPV6_IFADDR
        RTMGRP_IPV6_ROUTE

    struct ifinfomsg:
        uint8_t ifi_family
        int ifi_index

    struct rtgenmsg:
        uint8_t rtgen_family

    struct rtmsg:
        uint8_t rtm_family
        uint8_t rtm_dst_len
        uint8_t rtm_src_len
        uint8_t rtm_tos
        uint8_t rtm_table
        uint8_t rtm_protocol
        uint8_t rtm_scope
        uint8_t rtm_type
        uint32_t rtm_flags
