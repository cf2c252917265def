/* The memory that the programs write: allocating a record from the ring, completely or not at all, and its two indexes.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_BPF_STORE_H
#define NFCT_FAST_BPF_STORE_H

#include "helpers.h"
#include <nfct_fast/sockets/owners.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_DCCP 33
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136

/* The loader makes the maps, chooses their sizes, and puts their descriptors in place of these names. records and
 * buckets are arrays of two maps, see owners.h. */
SEC(".maps") char records, buckets, cookies, ports, watches, shares, events, scratch;
SEC(".rodata") const volatile struct owners_config config = {};
SEC(".bss") struct owners_state state = {};

INLINE __u16 ntohs(__u16 port) { return __builtin_bswap16(port); }
/* Whether an IPv6 address is IPv4-mapped, ::ffff:0:0/96; the words are in network order on a little-endian machine. */
INLINE int mapped(__u32 a, __u32 b, __u32 c) { return a == 0 && b == 0 && c == 0xffff0000; }
/* A single 32-bit load: clang would merge two into one of 64 bits, which the verifier rejects. */
#define word(field) (*(volatile __u32 *)&(field))
INLINE __u64 join(__u32 low, __u32 high) { return (__u64)high << 32 | low; }

INLINE int same_program(const struct process_id *a, const struct process_id *b)
{
    return a->tgid == b->tgid && a->exec == b->exec && a->start == b->start;
}

/* Return the mask for the small or the larger map. By arithmetic, see hide() below. */
INLINE __u32 mask_of(const volatile __u32 *masks, __u32 grown) { return masks[0] | (masks[1] & (0 - grown)); }
INLINE __u32 has_grown(__u64 position) { return position >> OWNERS_GROWN_SHIFT & 1; }

/* Return the record at a position. The larger map is in the outer map before any of its positions is assigned. */
INLINE struct owners_record *record_at(__u64 position)
{
    __u32 grown = has_grown(position), index = position & mask_of(config.record_mask, grown);
    void *map = bpf_map_lookup_elem(&records, &grown);
    return map ? bpf_map_lookup_elem(map, &index) : 0;
}

/* Whether the user may make another record. A user who makes more than the share in a second (2^30 ns) is refused, so
 * that nobody can replace the records of others. */
INLINE int share_take(__u32 account, __u64 now)
{
    __u32 index = owners_mix(config.seed, account) & (OWNERS_SHARES - 1);
    __u64 *share = bpf_map_lookup_elem(&shares, &index);
    if (!account || !share)
        return 1;
    __u64 old = *(volatile __u64 *)share;
    if (old >> 32 != now >> 30) {
        *(volatile __u64 *)share = now >> 30 << 32 | 1;
        return 1;
    }
    if ((__u32)old >= *(volatile __u32 *)&state.share) {
        __sync_fetch_and_add(&state.limited, 1);
        return 0;
    }
    __sync_fetch_and_add(share, 1);
    return 1;
}

/* Count a change of the sockets at a port: one came, left, began to listen or connected. */
INLINE void port_changed(__u64 netns, __u8 proto, __u16 port)
{
    __u32 at = owners_port(netns, proto, port, config.seed), index = at / 2;
    __u32 *pair = bpf_map_lookup_elem(&ports, &index);
    if (pair)
        __sync_fetch_and_add(&pair[at & 1], 1);
}

/* Remove the watch of a socket that its last holder is closing. */
INLINE void watched_gone(__u64 cookie)
{
    __u32 index = owners_watch_at(cookie, config.seed);
    struct owners_watch *watch = bpf_map_lookup_elem(&watches, &index);
    if (!watch)
        return;
#pragma unroll
    for (int i = 0; i < OWNERS_WATCH_PLACES; i++)
        if (*(volatile __u64 *)&watch->at[i].cookie == cookie)
            __sync_val_compare_and_swap(&watch->at[i].cookie, cookie, 0);
}

/* Take the next record of the ring. If it is still busy after a whole lap, its writer was interrupted: leave it alone,
 * and drop the new one. */
INLINE struct owners_record *record_begin(__u64 *position)
{
    *position = __sync_fetch_and_add(&state.head, 1);
    struct owners_record *record = record_at(*position);
    if (!record)
        return 0;
    __u64 old = record->seq;
    if (old & OWNERS_BUSY || __sync_val_compare_and_swap(&record->seq, old, *position | OWNERS_BUSY) != old) {
        __sync_fetch_and_add(&state.collided, 1);
        return 0;
    }
    return record;
}

/* Make a record valid. An exchange orders the writes before it on every architecture, which a store does not. */
INLINE void record_end(struct owners_record *record, __u64 position)
{
    (void)__sync_lock_test_and_set(&record->seq, position);
}

/* Begin to change a valid record. Only one writer may do so at a time; others get 0 and leave the record alone. */
INLINE int record_again(struct owners_record *record, __u64 position)
{
    return __sync_val_compare_and_swap(&record->seq, position, position | OWNERS_BUSY) == position;
}

INLINE __u64 *cookie_at(__u64 cookie)
{
    __u32 index = cookie & config.cookie_mask;
    return bpf_map_lookup_elem(&cookies, &index);
}

INLINE void cookie_set(__u64 cookie, __u64 position)
{
    __u64 *slot = cookie_at(cookie);
    if (slot)
        *(volatile __u64 *)slot = owners_cookie_slot(cookie, position);
}

/* Return the newest record of the socket and its position, or NULL. */
INLINE struct owners_record *record_of(__u64 cookie, __u64 *position)
{
    __u64 *slot = cookie_at(cookie);
    if (!slot)
        return 0;
    *position = *(volatile __u64 *)slot & (OWNERS_DONE - 1);
    if (*(volatile __u64 *)&state.retired && !has_grown(*position))
        return 0;
    struct owners_record *record = record_at(*position);
    if (!record || *(volatile __u64 *)&record->seq != *position || record->cookie != cookie)
        return 0;
    return record;
}

/* Return the bucket of a hash in the small index, or with grown = 1 in the larger one. */
INLINE struct owners_bucket *bucket_at(__u64 hash, __u32 grown)
{
    __u32 index = hash & mask_of(config.bucket_mask, grown);
    void *map = bpf_map_lookup_elem(&buckets, &grown);
    return map ? bpf_map_lookup_elem(map, &index) : 0;
}

/* Return the bucket of the index in use. A writer that still gets the small one does no harm: look-ups search both. */
INLINE struct owners_bucket *bucket_now(__u64 hash) { return bucket_at(hash, *(volatile __u64 *)&state.grown & 1); }

/* The verifier follows every branch of an unrolled loop. With comparisons, loading all programs took 1.1 s, so the
 * loops below use arithmetic, and hide() keeps clang from turning it back into comparisons. */
#define hide(variable) __asm__ volatile("" : "+r"(variable))

INLINE __s64 smaller(__s64 a, __s64 b)
{
    __s64 less = a - b;
    hide(less);
    return b + (less & less >> 63);
}

/* Return all ones if both slots have the same tag, else 0. */
INLINE __s64 same_tag(__u64 a, __u64 b)
{
    __s64 difference = (a ^ b) >> OWNERS_TAG_SHIFT;
    hide(difference);
    difference = (difference - 1) >> 63;
    hide(difference);
    return difference;
}

INLINE int slot_put(struct owners_bucket *bucket, __u32 at, __u64 new)
{
    at &= OWNERS_SLOTS - 1;
    __u64 old = *(volatile __u64 *)&bucket->slot[at];
    return __sync_val_compare_and_swap(&bucket->slot[at], old, new) == old;
}

/* Whether an older record is of the same tuple and program, so that nothing is lost by replacing it, except the user,
 * group, cgroup and name if they differ. *again is OWNERS_AGAIN then. */
INLINE int repeats(__u64 position, const struct owners_record *record, __u8 *again)
{
    struct owners_record *old = record_at(position);
    if (!old || old->seq != position || old->netns != record->netns || !same_program(&old->who.id, &record->who.id) ||
        !owners_same(&old->key, &record->key))
        return 0;
    const struct owners_who *a = &old->who, *b = &record->who;
    const __u64 *name = (const __u64 *)a->comm, *other = (const __u64 *)b->comm;
    int same = a->uid == b->uid && a->gid == b->gid && a->cgroup == b->cgroup && name[0] == other[0] &&
               name[1] == other[1] && a->id.start;
    *again = same ? old->key.flags & OWNERS_AGAIN : OWNERS_AGAIN;
    return 1;
}

/* Put a record into the slot of the same program's last record of this tuple, or else into that of the oldest record.
 * If half of the slots have the record's tag, replace the oldest of these, so that programs that share a tuple do not
 * evict all other tuples. */
INLINE void bucket_put(struct owners_bucket *bucket, __u64 hash, __u64 position, struct owners_record *record)
{
    const __s64 none = 1ULL << 62;
    __u64 new = owners_slot(hash, position);
    __s64 oldest = none, oldest_same = none, newest_same = 0, same = 0;
#pragma unroll
    for (int i = 0; i < OWNERS_SLOTS; i++) {
        __u64 slot = *(volatile __u64 *)&bucket->slot[i];
        __s64 age = (slot & OWNERS_POSITION) << 3 | i;
        __s64 like = same_tag(slot, new);
        same -= like;
        oldest = smaller(age, oldest);
        oldest_same = smaller((age & like) | (none & ~like), oldest_same);
        newest_same = -smaller(-(age & like), -newest_same);
    }
    __u8 again;
    if (newest_same >= OWNERS_SLOTS && repeats(newest_same >> 3, record, &again)) {
        oldest = newest_same;
        record->key.flags |= again; /* before it can be found */
    } else {
        if (same >= OWNERS_SLOTS / 2)
            oldest = oldest_same;
        if (oldest >= OWNERS_SLOTS &&
            (__u64)(oldest >> 3) + mask_of(config.record_mask, has_grown(position)) >= position)
            __sync_fetch_and_add(&state.displaced, 1);
    }
    if (!slot_put(bucket, oldest, new) && !slot_put(bucket, oldest + 1, new)) /* other writers changed both slots */
        __sync_fetch_and_add(&state.collided, 1);
}

/* Whether the newest record of the tuple is of this socket and program already. Checks only the newest with its tag. */
INLINE int bucket_has(struct owners_bucket *bucket, __u64 hash, const struct owners_key *key, __u64 cookie,
                      const struct process_id *id)
{
    __s64 newest = 0;
#pragma unroll
    for (int i = 0; i < OWNERS_SLOTS; i++) {
        __u64 slot = *(volatile __u64 *)&bucket->slot[i];
        newest = -smaller(-(__s64)(slot & OWNERS_POSITION & same_tag(slot, hash)), -newest);
    }
    if (!newest)
        return 0;
    struct owners_record *record = record_at(newest);
    return record && record->seq == (__u64)newest && record->cookie == cookie && same_program(&record->who.id, id) &&
           owners_same(&record->key, key);
}

INLINE void publish(struct owners_record *record, __u64 position, const struct owners_key *key)
{
    __u64 hash = owners_hash(key, record->netns, config.seed);
    __u8 kept = record->key.flags & OWNERS_KERNEL;
    record->key = *key;
    record->key.flags |= kept | OWNERS_PUBLISHED;
    record_end(record, position);
    struct owners_bucket *bucket = bucket_at(hash, has_grown(position));
    if (bucket)
        bucket_put(bucket, hash, position, record);
}

#endif
