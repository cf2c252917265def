/* Look-ups in the memory the owner programs write: no system call, no lock, nothing allocated.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Here and not in Cython for the atomics: a record may be replaced while it is read, and is then taken for absent. */
#ifndef NFCT_FAST_OWNERS_FIND_H
#define NFCT_FAST_OWNERS_FIND_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <nfct_fast/owners_load.h>

enum owners_match {
    OWNERS_EXACT = 1, /* the record has this very tuple */
    OWNERS_NO_SOURCE, /* all but the source address, which an unconnected UDP sender leaves to routing */
    OWNERS_BOUND,     /* who bound, or listens on, the local port */
};

struct owners_found {
    struct owners_record record;
    uint64_t other_time; /* when another process used the same tuple in the same namespace; 0: none did */
    uint8_t match;
};

/* A writer is at a record for tens of nanoseconds, so a busy one of the right position is worth a few more looks. */
static inline int owners_read(const struct owners *self, uint64_t position, struct owners_record *out)
{
    const struct owners_record *record = &self->record[position & (self->records - 1)];
    for (int tries = 0; tries < 64; tries++) {
        uint64_t seq = __atomic_load_n(&record->seq, __ATOMIC_ACQUIRE);
        if (seq == (position | OWNERS_BUSY))
            continue;
        if (seq != position)
            return 0;
        memcpy(out, record, sizeof(*out));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&record->seq, __ATOMIC_RELAXED) == position)
            return 1;
    }
    return 0;
}

/* The newest record of exactly this key, or of `sender`: the same key without a source, NULL if none is looked for. One of
 * that must not contradict the source. In any namespace (netns 0) only a confirmed source counts, and two namespaces
 * that both have the tuple are -EEXIST. */
static inline int owners_find(const struct owners *self, const struct owners_key *key, const struct owners_key *sender,
                              uint64_t netns, struct owners_found *out)
{
    uint64_t hash = owners_hash(key, self->seed), without = sender ? owners_hash(sender, self->seed) : hash;
    const struct owners_bucket *bucket = &self->bucket[hash & (self->buckets - 1)];
    struct owners_record another;
    int ambiguous = 0;
    uint64_t best = 0;
    out->other_time = 0;
    for (int i = 0; i < OWNERS_SLOTS; i++) {
        struct owners_record *record = best ? &another : &out->record;
        uint64_t slot = __atomic_load_n(&bucket->slot[i], __ATOMIC_ACQUIRE);
        int confirmed = 1;
        if (!slot || ((slot ^ hash) >> OWNERS_TAG_SHIFT && (slot ^ without) >> OWNERS_TAG_SHIFT) ||
            !owners_read(self, slot & OWNERS_POSITION, record) || !record->cookie || (netns && record->netns != netns))
            continue;
        if (!owners_same(&record->key, key)) {
            if (!sender || !owners_same(&record->key, sender))
                continue;
            confirmed = record->wire[0] == key->src[0] && record->wire[1] == key->src[1];
        }
        if (!netns && !confirmed)
            continue;
        if (best && record->netns != out->record.netns)
            ambiguous = 1;
        else if (best && record->who.tgid != out->record.who.tgid) {
            uint64_t older = record->seq > best ? out->record.who.time : record->who.time;
            out->other_time = older > out->other_time ? older : out->other_time;
        }
        if (record->seq > best) {
            best = record->seq;
            out->match = confirmed ? OWNERS_EXACT : OWNERS_NO_SOURCE;
            if (record == &another)
                out->record = another;
        }
    }
    return ambiguous ? -EEXIST : best != 0;
}

/* Conntrack gives other protocols no ports, or something that is none (a GRE key): egress did not note any. */
static inline int owners_has_ports(uint8_t proto)
{
    return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE || proto == IPPROTO_SCTP ||
           proto == IPPROTO_DCCP || proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

static inline int owners_bound(const struct owners *self, struct owners_key *key, uint64_t netns, struct owners_found *out)
{
    key->dst[0] = key->dst[1] = 0;
    key->dport = 0;
    int rc = owners_find(self, key, NULL, netns, out);
    if (!rc) {
        key->src[0] = key->src[1] = 0;
        rc = owners_find(self, key, NULL, netns, out);
    }
    if (!rc && key->family == AF_INET) { /* a dual-stack server; whether it is IPV6_V6ONLY is not known here */
        key->family = AF_INET6;
        rc = owners_find(self, key, NULL, netns, out);
    }
    out->match = OWNERS_BOUND;
    return rc;
}

/* 1 found, 0 not, -EEXIST: netns is 0 and several namespaces match. */
static inline int owners_lookup(const struct owners *self, const struct owners_key *tuple, uint64_t netns,
                                struct owners_found *out)
{
    struct owners_key key = *tuple, sender;
    int has_ports = owners_has_ports(key.proto);
    if (!has_ports)
        key.sport = key.dport = 0;
    sender = key;
    sender.src[0] = sender.src[1] = 0;
    int sends = key.proto == IPPROTO_UDP || key.proto == IPPROTO_UDPLITE;
    int rc = owners_find(self, &key, sends ? &sender : NULL, netns, out);
    /* A port alone says nothing across namespaces, and ICMP has none. */
    if (rc || !netns || !has_ports || key.proto == IPPROTO_ICMP || key.proto == IPPROTO_ICMPV6)
        return rc;
    return owners_bound(self, &key, netns, out);
}

/* Have the memory that owners_lookup of a sender will read brought near; nothing waits for it. By a load: measured on
 * Zen, a prefetch of a page that is not in the TLB changes nothing. */
static inline void owners_prefetch(const struct owners *self, const struct owners_key *tuple)
{
    struct owners_key key = *tuple;
    if (!owners_has_ports(key.proto))
        key.sport = key.dport = 0;
    uint64_t slot = __atomic_load_n(&self->bucket[owners_hash(&key, self->seed) & (self->buckets - 1)].slot[0], __ATOMIC_RELAXED);
    __asm__ volatile("" : : "r"(slot));
}

/* The newest record of a socket, by its cookie. 1 found, 0 not. */
static inline int owners_lookup_cookie(const struct owners *self, uint64_t cookie, struct owners_found *out)
{
    uint64_t slot = __atomic_load_n(&self->cookie[cookie & (self->cookies - 1)], __ATOMIC_ACQUIRE);
    out->match = OWNERS_EXACT;
    out->other_time = 0;
    return cookie && slot && owners_read(self, slot & (OWNERS_DONE - 1), &out->record) && out->record.cookie == cookie;
}

#endif
