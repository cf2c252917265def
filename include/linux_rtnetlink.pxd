from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<linux/rtnetlink.h>" nogil:
    enum:
        RTM_NEWROUTE
        RTM_DELROUTE
        RTM_GETROUTE
        RTN_LOCAL
        RTPROT_KERNEL
        RT_TABLE_LOCAL
        RTA_DST
        RTA_OIF
        RTMGRP_LINK
        RTMGRP_IPV4_IFADDR
        RTMGRP_IPV4_ROUTE
        RTMGRP_IPV6_IFADDR
        RTMGRP_IPV6_ROUTE

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
