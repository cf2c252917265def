/* What the BPF programs write and user space reads: the record of one owner, and the two indexes into them.
 * Shared by bpf/owners.bpf.c and the reader; SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Records stand in one ring: a writer takes the next position from a counter, so what is replaced is always the
 * oldest of all. The tuple index is a hash table of buckets (one cache line) of 8 slots, each a tag and a position;
 * the cookie index is direct-mapped, since the kernel deals cookies out in sequence. Kernel LRU hashes cost 2.5 times as
 * much to write, and reading them from user space costs a system call each.
 *
 * A record is valid at position p while its seq is p: a writer sets OWNERS_BUSY first, and a reader looks at seq before
 * and after it copies. Nobody writes to a busy record, so a torn one cannot pass for whole. */
#ifndef NFCT_FAST_OWNERS_H
#define NFCT_FAST_OWNERS_H

#include <linux/types.h>

#define OWNERS_BUSY (1ULL << 63)
#define OWNERS_SLOTS 8
#define OWNERS_POSITION ((1ULL << 48) - 1) /* in a bucket slot; the upper 16 bits are a tag */
#define OWNERS_TAG_SHIFT 48
#define OWNERS_DONE (1ULL << 47)           /* in a cookie slot: the tuple of this socket is in the index already */

enum owners_hook {
    OWNERS_CREATE = 1, /* made the socket (ping, raw, SCTP: they have no later hook in the process's own context) */
    OWNERS_CONNECT,    /* connected it */
    OWNERS_SEND,       /* sent to this destination on it */
    OWNERS_BIND,       /* bound it, or listens on it: not tied to one peer */
};

/* Seen from the socket: src is the local side. IPv4 is the first 4 bytes, the rest zero; ports in host order, for ICMP the id
 * and type << 8 | code. An all-zero src is "not chosen yet", an all-zero dst and port is any peer. */
struct owners_key {
    __u64 src[2];
    __u64 dst[2];
    __u16 sport;
    __u16 dport;
    __u8 family;
    __u8 proto;
    __u8 hook; /* enum owners_hook; not part of what is compared */
    __u8 again; /* the same process used the same tuple before; not compared either */
};

struct owners_who {
    __u64 cgroup;
    __u64 time; /* CLOCK_BOOTTIME, ns: the clock of a process's start time */
    __u32 tgid;
    __u32 tid;
    __u32 uid;
    __u32 gid;
    char comm[16];
};

struct owners_record {
    __u64 seq;
    __u64 cookie;
    __u64 netns;
    struct owners_key key; /* up to here one cache line */
    struct owners_who who;
    __u64 wire[2]; /* SEND: the source the first packet went out with, once it did; zero before */
};

struct owners_bucket {
    __u64 slot[OWNERS_SLOTS];
};

/* Set once before the programs are loaded, then frozen: the verifier takes them for constants. */
struct owners_config {
    __u64 seed; /* random: a bucket cannot be flooded on purpose */
    __u32 record_mask;
    __u32 bucket_mask;
    __u32 cookie_mask;
    __u32 zero;
};

struct owners_state {
    __u64 head;      /* next position; starts at 1, as an empty slot is 0 */
    __u64 spare[7];  /* the counters below stay off the line every writer touches */
    __u64 displaced; /* pushed out of a full bucket before its time in the ring was over */
    __u64 collided;  /* not written: a writer was interrupted there a whole lap ago, or two met in one slot */
};

static inline __attribute__((always_inline)) __u64 owners_mix(__u64 hash, __u64 word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
    return hash ^ (hash >> 32);
}

/* The lower bits choose the bucket, the upper 16 are the tag. The source is in the tag alone: an unconnected sender, which
 * has none yet, stands in the bucket of the tuple it will have, and one look at memory finds both. Only what has no peer,
 * a server, is spread by its address: it may have bound one port on each of many. The network namespace is left out, so that a
 * look-up in any of them finds all in one bucket. */
static inline __attribute__((always_inline)) __u64 owners_hash(const struct owners_key *key, __u64 seed)
{
    __u64 hash = owners_mix(seed, key->dst[0]), tag;
    if (key->dst[1])
        hash = owners_mix(hash, key->dst[1]);
    hash = owners_mix(hash, (__u64)key->sport << 32 | (__u64)key->dport << 16 | (__u64)key->family << 8 | key->proto);
    hash = owners_mix(hash, seed);
    tag = owners_mix(hash, key->src[0]);
    if (key->src[1])
        tag = owners_mix(tag, key->src[1]);
    if (!(key->dst[0] | key->dst[1]))
        return tag;
    return (tag & ~OWNERS_POSITION) | (hash & OWNERS_POSITION);
}

static inline __attribute__((always_inline)) int owners_same(const struct owners_key *a, const struct owners_key *b)
{
    return a->src[0] == b->src[0] && a->src[1] == b->src[1] && a->dst[0] == b->dst[0] && a->dst[1] == b->dst[1] &&
           a->sport == b->sport && a->dport == b->dport && a->family == b->family && a->proto == b->proto;
}

/* Tag 0 would make a slot of position 0 look empty; positions start at 1, so any tag will do. */
static inline __attribute__((always_inline)) __u64 owners_slot(__u64 hash, __u64 position)
{
    return (hash >> OWNERS_TAG_SHIFT) << OWNERS_TAG_SHIFT | position;
}

/* Above the bits that choose the slot: the same slot comes round after 2^35 sockets at the least. */
static inline __attribute__((always_inline)) __u64 owners_cookie_slot(__u64 cookie, __u64 position)
{
    return (cookie >> 19) << OWNERS_TAG_SHIFT | position;
}

#endif
