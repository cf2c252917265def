/* Names of MATCH_*, how an owner was found, and of REASON_*, why there is none, in the order of owner.pxd. */
#ifndef NFCT_FAST_OWNER_LABELS_H
#define NFCT_FAST_OWNER_LABELS_H

static const char *const nfct_fast_match_names[] = {0, "bpf", "socket", "wildcard", "listener", "protocol"};
static const char *const nfct_fast_reason_names[] = {
    0,           "off",    "forwarded",   "closed", "orphaned", "exited", "permission", "budget",
    "ambiguous", "kernel", "unsupported", "error",  "remote",   "netns",  "forgotten"};

#endif
