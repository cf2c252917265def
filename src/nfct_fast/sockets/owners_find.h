/* Look up records in the memory that the BPF programs write, without a system call, lock or allocation.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This is C for the atomics. A record that is replaced while it is read counts as absent. */
#ifndef NFCT_FAST_OWNERS_FIND_H
#define NFCT_FAST_OWNERS_FIND_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <nfct_fast/sockets/owners_load.h>

enum owners_match {
    OWNERS_EXACT = 1, /* the record has exactly this tuple */
    OWNERS_NO_SOURCE, /* the record has no source address: an unconnected UDP sender leaves it to routing */
};

struct owners_found {
    struct owners_record record;
    uint64_t other_time; /* when another program last used the tuple in the namespace, CLOCK_BOOTTIME ns; 0: never */
    uint8_t match;       /* enum owners_match */
};

/* Whether both records are of one program; where start and exec id are unknown, of one process. */
static inline int owners_is_program(const struct owners_record *a, const struct owners_record *b)
{
    return a->who.id.tgid == b->who.id.tgid && a->who.id.start == b->who.id.start && a->who.id.exec == b->who.id.exec;
}

/* Whether user, group, cgroup and name are the same as well; as in repeats() of bpf/store.h. */
static inline int owners_is_same(const struct owners_record *a, const struct owners_record *b)
{
    return a->who.id.start && a->who.uid == b->who.uid && a->who.gid == b->who.gid && a->who.cgroup == b->who.cgroup &&
           memcmp(a->who.comm, b->who.comm, sizeof(a->who.comm)) == 0;
}

/* Return the record at a position, or NULL while the larger ring is being made, or if the small one is retired. */
static inline const struct owners_record *owners_at(const struct owners *self, uint64_t position)
{
    int grown = (position & OWNERS_GROWN) != 0;
    const struct owners_record *record = __atomic_load_n(&self->record[grown], __ATOMIC_ACQUIRE);
    return record && (grown || !__atomic_load_n(&self->retired, __ATOMIC_RELAXED))
               ? &record[position & (self->records[grown] - 1)]
               : NULL;
}

/* Copy the record at a position. Return 1, or 0 if it has been replaced. A writer holds a record for tens of ns, so try
 * a busy one several times. */
static inline int owners_read(const struct owners *self, uint64_t position, struct owners_record *out)
{
    const struct owners_record *record = owners_at(self, position);
    if (!record)
        return 0;
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

/* Whether this is a record of the tuple in the namespace. */
static inline int owners_fits(const struct owners_record *record, const struct owners_key *tuple, uint64_t netns)
{
    struct owners_key key = *tuple;
    int unsourced = record->key.flags & OWNERS_UNSOURCED;
    key.flags = record->key.flags;
    if (!record->cookie || record->netns != netns || !owners_same(&record->key, &key))
        return 0;
    /* An unconnected sender must not be known to have had another source address. */
    return !unsourced || (!record->key.src[0] && !record->key.src[1]) ||
           (record->key.src[0] == tuple->src[0] && record->key.src[1] == tuple->src[1]);
}

/* The slots that a look-up searches: those of one bucket, or of two once the ring has grown. */
static inline int owners_first_slot(const struct owners *self)
{
    return __atomic_load_n(&self->retired, __ATOMIC_RELAXED) ? OWNERS_SLOTS : 0;
}

static inline int owners_slots(const struct owners *self)
{
    return __atomic_load_n(&self->state->grown, __ATOMIC_ACQUIRE) ? 2 * OWNERS_SLOTS : OWNERS_SLOTS;
}

/* Read the record of the tuple in slot i of the buckets that the hash selects. Return 1, or 0 if there is none. */
static inline int owners_slot_read(const struct owners *self, uint64_t hash, int i, const struct owners_key *tuple,
                                   uint64_t netns, struct owners_record *out)
{
    int grown = i / OWNERS_SLOTS;
    const struct owners_bucket *bucket = &self->bucket[grown][hash & (self->buckets[grown] - 1)];
    uint64_t slot = __atomic_load_n(&bucket->slot[i % OWNERS_SLOTS], __ATOMIC_ACQUIRE);
    return slot && !((slot ^ hash) >> OWNERS_TAG_SHIFT) && owners_read(self, slot & OWNERS_POSITION, out) &&
           owners_fits(out, tuple, netns);
}

/* Search the buckets of a hash for records of the tuple. Update *out to the newest of all so far, whose position is
 * *best, and out->other_time to the last use by another program. */
static inline void owners_scan(const struct owners *self, uint64_t hash, const struct owners_key *tuple, uint64_t netns,
                               struct owners_found *out, uint64_t *best)
{
    struct owners_record another;
    int slots = owners_slots(self);
    for (int i = owners_first_slot(self); i < slots; i++) {
        struct owners_record *record = *best ? &another : &out->record;
        if (!owners_slot_read(self, hash, i, tuple, netns, record))
            continue;
        int confirmed = record->key.src[0] == tuple->src[0] && record->key.src[1] == tuple->src[1];
        if (*best && !owners_is_program(record, &out->record)) {
            uint64_t older = record->seq > *best ? out->record.who.time : record->who.time;
            out->other_time = older > out->other_time ? older : out->other_time;
        } else if (*best && (record->seq ^ *best) & OWNERS_GROWN) {
            /* The BPF programs set OWNERS_AGAIN only by comparing records of the same ring. */
            int again =
                !owners_is_same(record, &out->record) || (record->key.flags | out->record.key.flags) & OWNERS_AGAIN;
            record->key.flags |= again ? OWNERS_AGAIN : 0;
            out->record.key.flags |= again ? OWNERS_AGAIN : 0;
        }
        if (record->seq > *best) {
            *best = record->seq;
            out->match = confirmed ? OWNERS_EXACT : OWNERS_NO_SOURCE;
            if (record == &another)
                out->record = another;
        }
    }
}

/* Whether the tuple has ports. For other protocols conntrack has none, or something else (a GRE key), and the egress
 * program notes none. */
static inline int owners_has_ports(uint8_t proto)
{
    return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE || proto == IPPROTO_SCTP ||
           proto == IPPROTO_DCCP || proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

/* Make the keys for a look-up: the tuple with its source address, and for UDP also without. Return 1 if both are
 * needed. */
static inline int owners_keys(const struct owners_key *tuple, struct owners_key *key, struct owners_key *sender)
{
    *key = *tuple;
    key->flags = 0;
    if (!owners_has_ports(key->proto))
        key->sport = key->dport = 0;
    *sender = *key;
    sender->src[0] = sender->src[1] = 0;
    sender->flags = OWNERS_UNSOURCED;
    return key->proto == IPPROTO_UDP || key->proto == IPPROTO_UDPLITE;
}

/* A prepared look-up. Many are prepared together, so that the memory they read is fetched at the same time. */
struct owners_probe {
    struct owners_key key;
    uint64_t netns;   /* cookie of the network namespace; 0: there is nothing to look up */
    uint64_t hash[2]; /* of the tuple with its source address, and without */
    int hashes;       /* how many of hash[] are used */
};

static inline void owners_prepare(const struct owners *self, const struct owners_key *tuple, uint64_t netns,
                                  struct owners_probe *out)
{
    struct owners_key sender;
    out->netns = netns;
    out->hashes = 1 + owners_keys(tuple, &out->key, &sender);
    out->hash[0] = owners_hash(&out->key, netns, self->seed);
    if (out->hashes == 2)
        out->hash[1] = owners_hash(&sender, netns, self->seed);
}

/* Find the newest record of a tuple. Return 1 if there is one, 0 if not. */
static inline int owners_lookup(const struct owners *self, const struct owners_probe *probe, struct owners_found *out)
{
    uint64_t best = 0;
    out->other_time = 0;
    for (int i = 0; i < probe->hashes; i++)
        owners_scan(self, probe->hash[i], &probe->key, probe->netns, out, &best);
    return best != 0;
}

/* Fetch memory into the cache without waiting for it. This is a load, because a prefetch instruction had no effect on
 * pages that were not in the TLB (measured on Zen). */
static inline void owners_touch(const void *at)
{
    uint8_t byte = *(const volatile uint8_t *)at;
    __asm__ volatile("" : : "r"(byte));
}

/* Fetch the buckets of a hash. */
static inline void owners_touch_buckets(const struct owners *self, uint64_t hash)
{
    for (int i = owners_first_slot(self); i < owners_slots(self); i += OWNERS_SLOTS) {
        int grown = i / OWNERS_SLOTS;
        owners_touch(&self->bucket[grown][hash & (self->buckets[grown] - 1)]);
    }
}

static inline void owners_touch_records(const struct owners *self, uint64_t hash)
{
    int slots = owners_slots(self);
    for (int i = owners_first_slot(self); i < slots; i++) {
        int grown = i / OWNERS_SLOTS;
        const struct owners_bucket *bucket = &self->bucket[grown][hash & (self->buckets[grown] - 1)];
        uint64_t slot = __atomic_load_n(&bucket->slot[i % OWNERS_SLOTS], __ATOMIC_RELAXED);
        if (!slot || (slot ^ hash) >> OWNERS_TAG_SHIFT)
            continue;
        const char *record = (const char *)owners_at(self, slot & OWNERS_POSITION);
        if (!record)
            continue;
        owners_touch(record);
        owners_touch(record + 64);
        owners_touch(record + sizeof(struct owners_record) - 1);
    }
}

/* Fetch the memory that owners_lookup() of each probe will read. The loops do nothing else, so that the processor gets
 * far enough ahead to wait for about ten cache lines at the same time. */
static inline void owners_approach(const struct owners *self, const struct owners_probe *probes, int count)
{
    for (int i = 0; i < count; i++)
        for (int of = 0; probes[i].netns && of < probes[i].hashes; of++)
            owners_touch_buckets(self, probes[i].hash[of]);
    for (int i = 0; i < count; i++)
        for (int of = 0; probes[i].netns && of < probes[i].hashes; of++)
            owners_touch_records(self, probes[i].hash[of]);
}

/* Return how often the sockets of a local port have changed. */
static inline uint32_t owners_port_changes(const struct owners *self, uint64_t netns, uint8_t proto, uint16_t port)
{
    return __atomic_load_n(&self->port[owners_port(netns, proto, port, self->seed)], __ATOMIC_ACQUIRE);
}

/* Watch for the end of a socket from now on. Return a number for owners_is_watched(), never 0. The caller has to check
 * afterwards that the socket still exists. Evicts another watch if all places are in use. */
static inline uint64_t owners_watch(struct owners *self, uint64_t cookie)
{
    struct owners_watch *watch = &self->watch[owners_watch_at(cookie, self->seed)];
    int at = -1;
    for (int i = 0; i < OWNERS_WATCH_PLACES; i++) {
        uint64_t there = __atomic_load_n(&watch->at[i].cookie, __ATOMIC_ACQUIRE);
        if (there == cookie)
            return watch->at[i].watch_id;
        if (!there)
            at = i;
    }
    self->watch_count++;
    if (at < 0)
        at = self->watch_count % OWNERS_WATCH_PLACES;
    watch->at[at].watch_id = self->watch_count;
    __atomic_store_n(&watch->at[at].cookie, cookie, __ATOMIC_SEQ_CST);
    return self->watch_count;
}

/* Whether the socket has stayed open since owners_watch() returned `watch_id`. Also false if the watch was evicted. */
static inline int owners_is_watched(const struct owners *self, uint64_t cookie, uint64_t watch_id)
{
    const struct owners_watch *watch = &self->watch[owners_watch_at(cookie, self->seed)];
    for (int i = 0; i < OWNERS_WATCH_PLACES; i++)
        if (__atomic_load_n(&watch->at[i].cookie, __ATOMIC_ACQUIRE) == cookie && watch->at[i].watch_id == watch_id)
            return 1;
    return 0;
}

/* Find the newest record of the socket with this cookie. Return 1 if there is one, 0 if not. */
static inline int owners_lookup_cookie(const struct owners *self, uint64_t cookie, struct owners_found *out)
{
    uint64_t slot = __atomic_load_n(&self->cookie[cookie & (self->cookies - 1)], __ATOMIC_ACQUIRE);
    out->match = OWNERS_EXACT;
    out->other_time = 0;
    return cookie && slot && owners_read(self, slot & (OWNERS_DONE - 1), &out->record) && out->record.cookie == cookie;
}

#endif
