from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libnetfilter_conntrack cimport ATTR_ID, ATTR_MARK, ATTR_TIMEOUT, ATTR_USE, ATTR_ZONE, nf_conntrack_attr

# Addresses and ports of one direction. An IPv4 address fills the first 4 bytes of src and dst, the other 12
# are zero; addresses are in network order, ports in host order. Protocols without ports have 0 there: see
# tuple_has_ports().
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

cdef inline bint tuple_has_ports(const tuple_t *tuple) noexcept nogil:
    """Whether sport and dport are ports: of TCP, UDP, DCCP, SCTP and UDP-Lite. conntrack has the keys of GRE there."""
    return tuple.proto in (6, 17, 33, 132, 136)

# What a flow_t tells of: an event, with the values of NFCT_T_NEW, NFCT_T_UPDATE and NFCT_T_DESTROY; or more than that.
cdef enum:
    EVENT_NEW = 1
    EVENT_UPDATE = 2
    EVENT_DESTROY = 4
    EVENT_FLOW = 5           # a whole flow, told at its end
    EVENT_ENTRY = 6          # an entry of the conntrack table
    EVENT_COUNT = 7

# Which fields of a flow_t besides `orig` are valid; all others are undefined.
cdef enum:
    FLOW_REPLY = 1
    FLOW_STATUS = 2
    FLOW_STATE = 4
    FLOW_COUNTERS = 8
    FLOW_START = 16
    FLOW_STOP = 32
    FLOW_RECOVERED = 64      # no field: the flow was read from the conntrack table, not from an event
    FLOW_FORGOTTEN = 128     # no field: of an EVENT_FLOW, its beginning is not remembered
    # `count` and `last`: it stands for several flows. The source port, or the id of an echo, the reply's destination
    # port, and what the entry was in (status, state, timeout, use) are those of the first of them, and not to be shown.
    # So is the entry's id, which is shown: it tells records of one time apart.
    FLOW_MERGED = 256

# The fields that are one number each, as indices of flow_t.numbers. Both decoders, templates and JSON take them from
# the three functions below, so a new one needs a line in each of these, a property in records/record.pyx and its stub.
cdef enum:
    NUMBER_MARK              # connection mark
    NUMBER_ZONE              # conntrack zone
    NUMBER_TIMEOUT           # seconds until the entry expires
    NUMBER_ID                # the kernel's id of the entry
    NUMBER_USE               # references that the kernel holds to the entry
    NUMBERS

ctypedef struct flow_t:
    tuple_t orig             # the direction of the first packet, before NAT
    tuple_t reply            # the direction of the replies
    int64_t time             # ns since the epoch when the event was received
    uint64_t packets[2]      # packets of the original and the reply direction; only with nf_conntrack_acct=1
    uint64_t bytes[2]        # bytes of the original and the reply direction; only with nf_conntrack_acct=1
    int64_t start            # ns since the epoch when the entry was made; only with nf_conntrack_timestamp=1
    int64_t stop             # ns since the epoch when the entry ended; only with nf_conntrack_timestamp=1
    int64_t last             # ns since the epoch when the last of several flows was received; the first: `time`
    int64_t occurred         # ns since the epoch when the kernel made the event, or 0; as `start`, from Linux 6.14 on
    uint32_t status          # IPS_* bits
    uint32_t numbers[NUMBERS]    # values of the fields that are one number, by NUMBER_*
    uint16_t has             # FLOW_* bits
    uint16_t has_numbers     # bit i is set if the event had numbers[i], which is 0 otherwise
    uint8_t type             # EVENT_*
    uint8_t state            # TCP_CONNTRACK_*, SCTP_CONNTRACK_* or CT_DCCP_*
    uint16_t netns           # index of the network namespace the event came from, in Sources and in the resolver
    uint64_t netns_inode     # inode of that namespace; 0: unknown
    uint32_t count           # number of several flows

cdef inline int number_of_attribute(uint16_t attribute) noexcept nogil:
    """Return the NUMBER_* of an attribute (CTA_* of linux/netfilter/nfnetlink_conntrack.h), or -1."""
    if attribute == 7:
        return NUMBER_TIMEOUT
    if attribute == 8:
        return NUMBER_MARK
    if attribute == 11:
        return NUMBER_USE
    if attribute == 12:
        return NUMBER_ID
    return NUMBER_ZONE if attribute == 18 else -1

cdef inline nf_conntrack_attr number_attribute_of_library(int number) noexcept nogil:
    """Return libnetfilter_conntrack's attribute for a NUMBER_*."""
    if number == NUMBER_MARK:
        return ATTR_MARK
    if number == NUMBER_ZONE:
        return ATTR_ZONE
    if number == NUMBER_USE:
        return ATTR_USE
    return ATTR_TIMEOUT if number == NUMBER_TIMEOUT else ATTR_ID

cdef inline const char *number_name(int number) noexcept nogil:
    """Return the name of a NUMBER_* in JSON and, after "ev.", in templates."""
    if number == NUMBER_MARK:
        return b"mark"
    if number == NUMBER_ZONE:
        return b"zone"
    if number == NUMBER_USE:
        return b"use"
    return b"timeout" if number == NUMBER_TIMEOUT else b"id"

cdef inline bint number_is_known(const flow_t *flow, int number) noexcept nogil:
    """Return whether the value is known. A mark and a zone always are, as the kernel leaves them out if they are 0."""
    if number <= NUMBER_ZONE:
        return True
    return flow.has_numbers >> number & 1 and (number == NUMBER_ID or not flow.has & FLOW_MERGED)

cdef inline uint32_t flow_count(const flow_t *flow) noexcept nogil:
    """How many flows it stands for."""
    return flow.count if flow.has & FLOW_MERGED else 1

cdef inline int64_t flow_first(const flow_t *flow, int64_t began) noexcept nogil:
    """ns since the epoch when the first of its flows began, as far as that is known; else when it was received.

    began: When its NEW event was received, or 0.
    """
    return flow.start if flow.has & FLOW_START else began or flow.time

cdef inline int64_t flow_last(const flow_t *flow) noexcept nogil:
    """ns since the epoch when the last of its flows was received."""
    return flow.last if flow.has & FLOW_MERGED else flow.time

cdef void tuple_invert(const tuple_t *tuple, tuple_t *out) noexcept nogil

# Fill in a tuple of a protocol with ports from Python objects; addresses in any form that ipaddress accepts.
# ValueError.
cdef int tuple_set(tuple_t *out, int proto, object src, int sport, object dst, int dport) except -1
