/* The memory that the BPF programs write and user space reads: notes, called records here, and two indexes of them.
 * Shared by bpf/owners.bpf.c and the reader. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All records are in one ring. A writer takes the next position from a counter, so that a new record always replaces
 * the oldest. The tuple index is a hash table of buckets (one cache line) of 8 slots, each of which has a tag and a
 * position. The cookie index is direct-mapped, since the kernel assigns cookies in sequence. Writing to a kernel LRU
 * hash takes 2.5 times as long, and reading one from user space takes a system call.
 *
 * A host with few flows needs little of that. So there is a small ring with its index at first, and a larger ring and
 * index are made when notes come fast. From then on new records go to the larger ring, and the small one is left as it
 * is. Look-ups search both and take the newest record, until the larger ring has been filled once. A position says
 * which of the two rings it belongs to, so the switch takes no lock and loses nothing.
 *
 * A record is valid at position p while its seq is p. A writer sets OWNERS_BUSY first, and a reader compares seq before
 * and after copying. No second writer touches a busy record, so a half-written one is never taken for complete. */
#ifndef NFCT_FAST_OWNERS_H
#define NFCT_FAST_OWNERS_H

#include <linux/types.h>
#include <nfct_fast/processes/process_event.h>

#define OWNERS_BUSY (1ULL << 63)
#define OWNERS_SLOTS 8
#define OWNERS_SHARES 1024
#define OWNERS_POSITION ((1ULL << 48) - 1) /* the position in a bucket slot; the upper 16 bits are the tag */
#define OWNERS_TAG_SHIFT 48
#define OWNERS_DONE (1ULL << 47) /* in a cookie slot: the tuple of this socket is in the index already */
#define OWNERS_GROWN_SHIFT 46    /* in a position: it is one of the larger ring. Below it the notes are counted on: */
#define OWNERS_GROWN (1ULL << OWNERS_GROWN_SHIFT) /* 2^46 are 22 years of 100,000 a second */

enum owners_hook {
    OWNERS_CREATE = 1, /* created the socket (ping, raw, SCTP, which have no later hook in the process's context) */
    OWNERS_CONNECT,    /* connected the socket */
    OWNERS_SEND,       /* sent to this destination on the socket */
    OWNERS_ACCEPT,     /* accepted the connection, so is not the originator of the tuple */
    OWNERS_BIND,       /* bound the socket; found by cookie only, as having a port does not prove having used it */
};

/* A tuple seen from the socket: src is the local end. An IPv4 address is in the first 4 bytes, the rest is zero. Ports
 * are in host byte order; for ICMP they are the id, and type << 8 | code. An all-zero src has not been chosen yet, an
 * all-zero dst and dport stand for any peer. */
struct owners_key {
    __u64 src[2];
    __u64 dst[2];
    __u16 sport;
    __u16 dport;
    __u8 family;
    __u8 proto;
    __u8 hook;  /* enum owners_hook; not compared */
    __u8 flags; /* OWNERS_AGAIN | OWNERS_UNSOURCED | OWNERS_PUBLISHED | OWNERS_KERNEL */
};

#define OWNERS_AGAIN 1     /* the same program used the same tuple before, e.g. as another user; not compared */
#define OWNERS_UNSOURCED 2 /* an unconnected sender: src is zero until its first packet leaves, then that packet's */
#define OWNERS_PUBLISHED 4 /* the record is in the tuple index */
#define OWNERS_KERNEL 8    /* a kernel thread was running, so the record belongs to no program */

struct owners_who {
    __u64 cgroup;
    __u64 time; /* when the record was made, CLOCK_BOOTTIME ns */
    struct process_id id;
    __u32 uid;
    __u32 gid;
    char comm[16]; /* name of the process's main thread; of the calling thread if task_struct cannot be read */
};

struct owners_record {
    __u64 seq;
    __u64 cookie;
    __u64 netns;
    struct owners_key key; /* up to here one cache line */
    struct owners_who who;
    __u32 account; /* the user charged for the record: uid, or in a user namespace the uid that owns the namespace */
    __u32 spare;
};

struct owners_bucket {
    __u64 slot[OWNERS_SLOTS];
};

/* Set before the programs are loaded, then frozen, so that the verifier treats the values as constants. */
struct owners_config {
    __u64 seed;           /* random, so that nobody can aim at one bucket */
    __u32 record_mask[2]; /* size - 1 of the small ring, and of the larger one */
    __u32 bucket_mask[2];
    __u32 cookie_mask;
    __u32 ring_size; /* bytes of the ring of process events */
    struct task_offsets task;
};

struct owners_state {
    __u64 head;     /* next position; starts at 1, as 0 is an empty slot; the reader adds OWNERS_GROWN once */
    __u64 spare[7]; /* keeps the fields below off the cache line that every writer changes */
    __u64 grown;    /* 1 once the larger ring is in use; written by the reader, like the next two */
    __u64 retired; /* 1 once the larger ring, had it existed from the start, would have replaced all of the small one */
    __u64 share;   /* records that one user other than root may make in a second */
    __u64 displaced;   /* records evicted from a full bucket while they were still in the ring */
    __u64 collided;    /* records dropped as an interrupted writer still held the position, or two met in one slot */
    __u64 limited;     /* records refused as their user had used up the share */
    __u64 events_lost; /* process events for which the ring had no room */
    __u64 lost_at;     /* CLOCK_BOOTTIME ns at which the last process event was lost */
    __u64 wakeups;     /* how often the reader was woken because the ring of process events was half full */
};

static inline __attribute__((always_inline)) __u64 owners_mix(__u64 hash, __u64 word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
    return hash ^ (hash >> 32);
}

/* Hash a tuple. The lower bits select the bucket, the upper 16 are the tag. Namespace and source address are part of
 * the hash, so that nobody can fill the bucket of a tuple from another one. An unconnected sender, whose source address
 * is not chosen yet, is hashed without one, so that a look-up has to search two buckets. */
static inline __attribute__((always_inline)) __u64 owners_hash(const struct owners_key *key, __u64 netns, __u64 seed)
{
    __u64 hash = owners_mix(seed ^ netns, key->dst[0]);
    if (key->dst[1] | key->src[1])
        hash = owners_mix(owners_mix(hash, key->dst[1]), key->src[1]);
    hash = owners_mix(hash, (__u64)key->sport << 32 | (__u64)key->dport << 16 | (__u64)key->family << 8 | key->proto);
    return owners_mix(owners_mix(hash, key->src[0]), seed);
}

/* The index of the counter for sockets that come to a local port or leave it. All ports of a namespace and protocol are
 * on one of OWNERS_PORT_PAGES pages: a client's sockets change counters all the time, which should be those of few
 * others. */
#define OWNERS_PORTS 65536
#define OWNERS_PORT_PAGES 8
static inline __attribute__((always_inline)) __u32 owners_port(__u64 netns, __u8 proto, __u16 port, __u64 seed)
{
    return (__u32)(owners_mix(seed ^ netns, proto) >> 40) % OWNERS_PORT_PAGES * OWNERS_PORTS + port;
}

/* Sockets that are watched for their end, each in one of the four places that its cookie selects (a cache line). The
 * reader writes the cookie, and the sock_release program removes it. */
#define OWNERS_WATCHES 4096
#define OWNERS_WATCH_PLACES 4
struct owners_watch {
    struct {
        __u64 cookie;
        __u64 watch_id; /* what owners_watch() returned */
    } at[OWNERS_WATCH_PLACES];
};

static inline __attribute__((always_inline)) __u32 owners_watch_at(__u64 cookie, __u64 seed)
{
    return owners_mix(seed, cookie) >> 32 & (OWNERS_WATCHES - 1);
}

/* Whether two tuples are the same. The source address of unconnected senders is not compared. */
static inline __attribute__((always_inline)) int owners_same(const struct owners_key *a, const struct owners_key *b)
{
    if ((a->flags ^ b->flags) & OWNERS_UNSOURCED)
        return 0;
    return ((a->src[0] == b->src[0] && a->src[1] == b->src[1]) || a->flags & OWNERS_UNSOURCED) &&
           a->dst[0] == b->dst[0] && a->dst[1] == b->dst[1] && a->sport == b->sport && a->dport == b->dport &&
           a->family == b->family && a->proto == b->proto;
}

/* The value of a bucket slot. It is never 0, the value of an empty slot, as positions start at 1. */
static inline __attribute__((always_inline)) __u64 owners_slot(__u64 hash, __u64 position)
{
    return (hash >> OWNERS_TAG_SHIFT) << OWNERS_TAG_SHIFT | position;
}

/* The value of a cookie slot. Its tag is of the bits above those that select the slot, so it repeats after at least
 * 2^35 sockets. */
static inline __attribute__((always_inline)) __u64 owners_cookie_slot(__u64 cookie, __u64 position)
{
    return (cookie >> 19) << OWNERS_TAG_SHIFT | position;
}

#endif
