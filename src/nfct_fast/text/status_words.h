/* The bits of enum ip_conntrack_status (linux/netfilter/nf_conntrack_common.h), by their place. */
#ifndef NFCT_FAST_STATUS_WORDS_H
#define NFCT_FAST_STATUS_WORDS_H

static const char *const nfct_fast_status_words[] = {
    "EXPECTED",     "SEEN_REPLY", "ASSURED",       "CONFIRMED", "SRC_NAT",   "DST_NAT", "SEQ_ADJUST", "SRC_NAT_DONE",
    "DST_NAT_DONE", "DYING",      "FIXED_TIMEOUT", "TEMPLATE",  "NAT_CLASH", "HELPER",  "OFFLOAD",    "HW_OFFLOAD"};

#endif
