/* What the BPF programs write and user space reads: the record of one owner, and the two indexes into them.
 * Shared by bpf/owners.bpf.c and the reader; SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Records stand in one ring: a writer takes the next position from a counter, so what is replaced is always the
 * oldest of all. The tuple index is a hash table of buckets (one cache line) of 8 slots, each a tag and a position;
 * the cookie index is direct-mapped, since the kernel deals cookies out in sequence. Kernel LRU hashes cost 2.5 times
 * as much to write, and reading them from user space costs a system call each.
 *
 * A host of few flows needs little of that: there is a small ring with its index, and the same once more, larger, which
 * is made when notes come fast. From then on it is written to, and the small one stays as it was: look-ups ask both,
 * and whatever is newest is right, until the larger has gone round once. A position says itself in which of the two it
 * is, so the change needs no lock, and loses nothing.
 *
 * A record is valid at position p while its seq is p: a writer sets OWNERS_BUSY first, and a reader looks at seq before
 * and after it copies. Nobody writes to a busy record, so a torn one cannot pass for whole. */
#ifndef NFCT_FAST_OWNERS_H
#define NFCT_FAST_OWNERS_H

#include <linux/types.h>
#include <nfct_fast/processes/process_event.h>

#define OWNERS_BUSY (1ULL << 63)
#define OWNERS_SLOTS 8
#define OWNERS_SHARES 1024
#define OWNERS_POSITION ((1ULL << 48) - 1) /* in a bucket slot; the upper 16 bits are a tag */
#define OWNERS_TAG_SHIFT 48
#define OWNERS_DONE (1ULL << 47)           /* in a cookie slot: the tuple of this socket is in the index already */
#define OWNERS_GROWN_SHIFT 46 /* in a position: it is one of the larger ring. Below it the notes are counted on: */
#define OWNERS_GROWN (1ULL << OWNERS_GROWN_SHIFT) /* 2^46 are 22 years of 100,000 a second */

enum owners_hook {
    OWNERS_CREATE = 1, /* made the socket (ping, raw, SCTP: they have no later hook in the process's own context) */
    OWNERS_CONNECT,    /* connected it */
    OWNERS_SEND,       /* sent to this destination on it */
    OWNERS_ACCEPT,     /* accepted it: no tuple's originator */
    OWNERS_BIND,       /* bound it: known by its cookie alone, since who has a port is not therefore the one that is meant */
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
    __u8 hook;  /* enum owners_hook; not part of what is compared */
    __u8 flags; /* OWNERS_AGAIN, ... */
};

#define OWNERS_AGAIN 1     /* the same program used the same tuple before, as another user or the like; not compared */
#define OWNERS_PUBLISHED 4 /* the tuple index has it */
#define OWNERS_KERNEL 8    /* noted while a kernel thread ran: that is nobody's program */
#define OWNERS_UNSOURCED 2 /* an unconnected sender: src is what its first packet left with, zero until then */

struct owners_who {
    __u64 cgroup;
    __u64 time; /* CLOCK_BOOTTIME, ns: the clock of a process's start time */
    struct process_id id;
    __u32 uid;
    __u32 gid;
    char comm[16]; /* of the process's first thread; of the sending one where tasks cannot be read */
};

struct owners_record {
    __u64 seq;
    __u64 cookie;
    __u64 netns;
    struct owners_key key; /* up to here one cache line */
    struct owners_who who;
    __u32 account; /* the user of the initial namespace who answers for it: of a user namespace, who made that */
    __u32 spare;
};

struct owners_bucket {
    __u64 slot[OWNERS_SLOTS];
};

/* Set once before the programs are loaded, then frozen: the verifier takes them for constants. */
struct owners_config {
    __u64 seed; /* random: a bucket cannot be flooded on purpose */
    __u32 record_mask[2]; /* of the small ring, and of the larger one */
    __u32 bucket_mask[2];
    __u32 cookie_mask;
    __u32 ring_size;           /* bytes of the ring of process events */
    struct task_offsets task;
};

struct owners_state {
    __u64 head;      /* next position; starts at 1, as an empty slot is 0; the reader adds OWNERS_GROWN once */
    __u64 spare[7];  /* the fields below stay off the line every writer touches */
    __u64 grown;     /* 1 once the larger ring is written to; the reader's, as the next two */
    __u64 retired;   /* 1 once nothing in the small ring would still be in a ring that had been large from the start */
    __u64 share;     /* records that one user may make in a second, root apart */
    __u64 displaced; /* pushed out of a full bucket before its time in the ring was over */
    __u64 collided;  /* not written: a writer was interrupted there a whole lap ago, or two met in one slot */
    __u64 limited;   /* not written: their user made more than a share */
    __u64 events_lost; /* process events for which the ring had no room, */
    __u64 lost_at;     /* and when the last of them was lost: CLOCK_BOOTTIME, ns */
    __u64 wakeups;     /* how often the reader of the ring was woken, since it was half full */
};

static inline __attribute__((always_inline)) __u64 owners_mix(__u64 hash, __u64 word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
    return hash ^ (hash >> 32);
}

/* The lower bits choose the bucket, the upper 16 are the tag. Namespace and source take part, so that nobody fills the bucket
 * of a tuple from elsewhere: an unconnected sender, whose source is not chosen yet, stands in the bucket without one, and a
 * flow is looked for in both. */
static inline __attribute__((always_inline)) __u64 owners_hash(const struct owners_key *key, __u64 netns, __u64 seed)
{
    __u64 hash = owners_mix(seed ^ netns, key->dst[0]);
    if (key->dst[1] | key->src[1])
        hash = owners_mix(owners_mix(hash, key->dst[1]), key->src[1]);
    hash = owners_mix(hash, (__u64)key->sport << 32 | (__u64)key->dport << 16 | (__u64)key->family << 8 | key->proto);
    return owners_mix(owners_mix(hash, key->src[0]), seed);
}

/* Where it is counted how often sockets came to a local port or left it: all ports of a namespace and protocol stand together, on a
 * page that they share with few others. A client's sockets come to ports all the time: those of others had better not be its. */
#define OWNERS_PORTS 65536
#define OWNERS_PORT_PAGES 8
static inline __attribute__((always_inline)) __u32 owners_port(__u64 netns, __u8 proto, __u16 port, __u64 seed)
{
    return (__u32)(owners_mix(seed ^ netns, proto) >> 40) % OWNERS_PORT_PAGES * OWNERS_PORTS + port;
}

/* Sockets whose end is waited for, each in one of the four places its cookie gives it (a cache line): the reader writes the cookie,
 * sock_release takes it away. */
#define OWNERS_WATCHES 4096
#define OWNERS_WATCH_PLACES 4
struct owners_watch {
    struct {
        __u64 cookie;
        __u64 turn; /* the reader's: how often it has written here */
    } at[OWNERS_WATCH_PLACES];
};

static inline __attribute__((always_inline)) __u32 owners_watch_at(__u64 cookie, __u64 seed)
{
    return owners_mix(seed, cookie) >> 32 & (OWNERS_WATCHES - 1);
}

/* Of two unconnected senders the source is not part of the tuple. */
static inline __attribute__((always_inline)) int owners_same(const struct owners_key *a, const struct owners_key *b)
{
    if ((a->flags ^ b->flags) & OWNERS_UNSOURCED)
        return 0;
    return ((a->src[0] == b->src[0] && a->src[1] == b->src[1]) || a->flags & OWNERS_UNSOURCED) && a->dst[0] == b->dst[0] &&
           a->dst[1] == b->dst[1] && a->sport == b->sport && a->dport == b->dport && a->family == b->family &&
           a->proto == b->proto;
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
