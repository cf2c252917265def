"""Decoding of conntrack messages: <libnetfilter_conntrack/libnetfilter_conntrack.h>."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from linux_netlink cimport nlmsghdr

cdef extern from "<libnetfilter_conntrack/libnetfilter_conntrack.h>" nogil:
    struct nf_conntrack:
        pass

    enum nf_conntrack_attr:
        ATTR_ORIG_L3PROTO
        ATTR_ORIG_L4PROTO
        ATTR_REPL_L3PROTO
        ATTR_REPL_L4PROTO
        ATTR_ICMP_TYPE
        ATTR_ICMP_CODE
        ATTR_ICMP_ID
        ATTR_TCP_STATE
        ATTR_SCTP_STATE
        ATTR_DCCP_STATE
        ATTR_MARK
        ATTR_TIMEOUT
        ATTR_ID
        ATTR_STATUS
        ATTR_ZONE
        ATTR_USE
        ATTR_ORIG_COUNTER_PACKETS
        ATTR_REPL_COUNTER_PACKETS
        ATTR_ORIG_COUNTER_BYTES
        ATTR_REPL_COUNTER_BYTES
        ATTR_TIMESTAMP_START
        ATTR_TIMESTAMP_STOP
        ATTR_SECCTX
        ATTR_CONNLABELS
        ATTR_HELPER_INFO

    enum nf_conntrack_attr_grp:
        ATTR_GRP_ORIG_IPV4
        ATTR_GRP_REPL_IPV4
        ATTR_GRP_ORIG_IPV6
        ATTR_GRP_REPL_IPV6
        ATTR_GRP_ORIG_PORT
        ATTR_GRP_REPL_PORT

    struct nfct_attr_grp_ipv4:
        uint32_t src
        uint32_t dst

    struct nfct_attr_grp_ipv6:
        uint32_t src[4]
        uint32_t dst[4]

    struct nfct_attr_grp_port:
        uint16_t sport
        uint16_t dport

    nf_conntrack *nfct_new()
    void nfct_destroy(nf_conntrack *ct)
    int nfct_attr_is_set(const nf_conntrack *ct, const nf_conntrack_attr type)
    uint8_t nfct_get_attr_u8(const nf_conntrack *ct, const nf_conntrack_attr type)
    uint16_t nfct_get_attr_u16(const nf_conntrack *ct, const nf_conntrack_attr type)
    uint32_t nfct_get_attr_u32(const nf_conntrack *ct, const nf_conntrack_attr type)
    uint64_t nfct_get_attr_u64(const nf_conntrack *ct, const nf_conntrack_attr type)
    int nfct_get_attr_grp(const nf_conntrack *ct, const nf_conntrack_attr_grp type, void *data)

    enum:
        NFCT_CP_OVERRIDE

    void nfct_copy(nf_conntrack *dest, const nf_conntrack *source, unsigned int flags)
    int nfct_nlmsg_parse(const nlmsghdr *nlh, nf_conntrack *ct)
