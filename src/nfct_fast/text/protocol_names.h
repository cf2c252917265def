/* Names of IP protocols: those of conntrack(8), and for the rest those of the IANA registry of protocol numbers. */
#ifndef NFCT_FAST_PROTOCOL_NAMES_H
#define NFCT_FAST_PROTOCOL_NAMES_H

static const char *const nfct_fast_protocol_names[256] = {
    [1] = "icmp",   [2] = "igmp",      [4] = "ipencap",  [6] = "tcp",    [8] = "egp",    [17] = "udp",
    [27] = "rdp",   [33] = "dccp",     [41] = "ipv6",    [46] = "rsvp",  [47] = "gre",   [50] = "esp",
    [51] = "ah",    [58] = "icmpv6",   [88] = "eigrp",   [89] = "ospf",  [94] = "ipip",  [97] = "etherip",
    [98] = "encap", [103] = "pim",     [108] = "ipcomp", [112] = "vrrp", [115] = "l2tp", [124] = "isis",
    [132] = "sctp", [136] = "udplite", [137] = "mpls",   [139] = "hip",  [142] = "rohc", [143] = "ethernet",
};

#endif
