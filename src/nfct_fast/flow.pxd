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
