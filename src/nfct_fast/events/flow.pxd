from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# Addresses and ports of one direction. An IPv4 address fills the first 4 bytes of src and dst, the other 12
# are zero; addresses are in network order, ports in host order. Protocols without ports have 0 there.
ctypedef struct tuple_t:
    uint8_t src[16]
    uint8_t dst[16]
    uint16_t sport
    uint16_t dport
    uint8_t family       # AF_INET or AF_INET6
    uint8_t proto        # IPPROTO_*
    uint16_t icmp_id     # ICMP and ICMPv6 only, like the next two
    uint8_t icmp_type
    uint8_t icmp_code

# The numbers of NFCT_T_NEW, NFCT_T_UPDATE and NFCT_T_DESTROY.
cdef enum:
    EVENT_NEW = 1
    EVENT_UPDATE = 2
    EVENT_DESTROY = 4

# What a flow_t holds beside its original tuple; a field whose bit is not set means nothing.
cdef enum:
    FLOW_REPLY = 1
    FLOW_STATUS = 2
    FLOW_MARK = 4
    FLOW_ZONE = 8
    FLOW_TIMEOUT = 16
    FLOW_ID = 32
    FLOW_STATE = 64
    FLOW_COUNTERS = 128
    FLOW_START = 256
    FLOW_STOP = 512
    FLOW_RECOVERED = 1024    # found in the table after its event was lost

ctypedef struct flow_t:
    tuple_t orig
    tuple_t reply
    int64_t time             # ns since the epoch, when it was received
    uint64_t packets[2]      # original and reply
    uint64_t bytes[2]
    int64_t start            # ns since the epoch, nf_conntrack_timestamp=1 only
    int64_t stop
    uint32_t status          # IPS_* bits
    uint32_t mark
    uint32_t timeout         # seconds
    uint32_t id
    uint16_t has             # FLOW_* bits
    uint16_t zone
    uint8_t type             # EVENT_*
    uint8_t state            # TCP_CONNTRACK_*, SCTP_CONNTRACK_* or CT_DCCP_*
    uint16_t netns           # index of the namespace it was heard in
    uint64_t netns_inode     # and that namespace's number; 0: not told apart

cdef bint tuple_same(const tuple_t *a, const tuple_t *b) noexcept nogil
cdef void tuple_invert(const tuple_t *tuple, tuple_t *out) noexcept nogil

# A tuple of Python's values, addresses as ipaddress takes them, for a protocol with ports. ValueError.
cdef int tuple_set(tuple_t *out, int proto, object src, int sport, object dst, int dport) except -1
