from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# Addresses and ports of one direction. An IPv4 address fills the first 4 bytes of src and dst, the other 12
# are zero; addresses are in network order, ports in host order. Protocols without ports have 0 there.
ctypedef struct tuple_t:
    uint8_t src[16]      # source address
    uint8_t dst[16]      # destination address
    uint16_t sport       # source port
    uint16_t dport       # destination port
    uint8_t family       # AF_INET or AF_INET6
    uint8_t proto        # IPPROTO_*
    uint16_t icmp_id     # identifier of an ICMP or ICMPv6 echo; 0 for other protocols, like the next two
    uint8_t icmp_type    # type of an ICMP or ICMPv6 message
    uint8_t icmp_code    # code of an ICMP or ICMPv6 message

# Event types, with the values of NFCT_T_NEW, NFCT_T_UPDATE and NFCT_T_DESTROY.
cdef enum:
    EVENT_NEW = 1
    EVENT_UPDATE = 2
    EVENT_DESTROY = 4

# Which fields of a flow_t besides `orig` are valid; all others are undefined.
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
    FLOW_RECOVERED = 1024    # no field: the flow was read from the conntrack table, not from an event

ctypedef struct flow_t:
    tuple_t orig             # the direction of the first packet, before NAT
    tuple_t reply            # the direction of the replies
    int64_t time             # ns since the epoch when the event was received
    uint64_t packets[2]      # packets of the original and the reply direction; with nf_conntrack_acct=1 only
    uint64_t bytes[2]        # bytes of the original and the reply direction; with nf_conntrack_acct=1 only
    int64_t start            # ns since the epoch when the entry was made; with nf_conntrack_timestamp=1 only
    int64_t stop             # ns since the epoch when the entry ended; with nf_conntrack_timestamp=1 only
    uint32_t status          # IPS_* bits
    uint32_t mark            # connection mark
    uint32_t timeout         # seconds until the entry expires
    uint32_t id              # the kernel's id of the entry
    uint16_t has             # FLOW_* bits
    uint16_t zone            # conntrack zone
    uint8_t type             # EVENT_*
    uint8_t state            # TCP_CONNTRACK_*, SCTP_CONNTRACK_* or CT_DCCP_*
    uint16_t netns           # index of the network namespace the event came from, in Sources and in the resolver
    uint64_t netns_inode     # inode of that namespace; 0: unknown

cdef bint tuple_same(const tuple_t *a, const tuple_t *b) noexcept nogil
cdef void tuple_invert(const tuple_t *tuple, tuple_t *out) noexcept nogil

# A tuple of Python's values, addresses as ipaddress takes them, for a protocol with ports. ValueError.
cdef int tuple_set(tuple_t *out, int proto, object src, int sport, object dst, int dport) except -1
