/* Notes who makes, connects and sends on sockets, as it happens. Stable UAPI only: cgroup programs, no BTF of the kernel.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Traffic is never refused or altered: every program returns 1. Owners are taken from `current` only in hooks that run
 * in the process's own system call (create, bind, connect, sendmsg); sockops and egress may run in a softirq or in a
 * queue daemon's context, and join by socket cookie instead. The oldest kernel all of it loads on is 5.15
 * (bpf_get_netns_cookie in cgroup sock_addr is 5.7, in sock_ops 5.15; atomics that fetch are 5.12). */
#include <linux/bpf.h>
#include <nfct_fast/owners.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

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
#define IPPROTO_MPTCP 262

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)BPF_FUNC_get_current_pid_tgid;
static __u64 (*const bpf_get_current_uid_gid)(void) = (void *)BPF_FUNC_get_current_uid_gid;
static long (*const bpf_get_current_comm)(void *buf, __u32 size) = (void *)BPF_FUNC_get_current_comm;
static __u64 (*const bpf_get_current_cgroup_id)(void) = (void *)BPF_FUNC_get_current_cgroup_id;
static __u64 (*const bpf_get_socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;
static __u64 (*const bpf_get_netns_cookie)(void *ctx) = (void *)BPF_FUNC_get_netns_cookie;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)BPF_FUNC_ktime_get_boot_ns;
static struct bpf_sock *(*const bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)BPF_FUNC_sk_fullsock;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)BPF_FUNC_sk_storage_get;
static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)BPF_FUNC_skb_load_bytes;

/* The loader makes the maps (sizes are its options) and puts their fds where these names are used. */
SEC(".maps") char records, buckets, cookies, listeners;
SEC(".rodata") const volatile struct owners_config config = {};
SEC(".bss") struct owners_state state = {};

INLINE __u16 ntohs(__u16 port) { return __builtin_bswap16(port); }
INLINE int mapped(__u32 a, __u32 b, __u32 c) { return a == 0 && b == 0 && c == 0xffff0000; } /* ::ffff:0:0/96, little-endian */
/* One 32-bit load each: the verifier refuses the 64-bit ones that clang would merge them into. */
#define word(field) (*(volatile __u32 *)&(field))
INLINE __u64 join(__u32 low, __u32 high) { return (__u64)high << 32 | low; }

INLINE struct owners_record *record_at(__u64 position)
{
    __u32 index = position & config.record_mask;
    return bpf_map_lookup_elem(&records, &index);
}

/* A record still busy after a whole lap belongs to an interrupted writer: leave it, and lose this one. */
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

/* An exchange, not a store: it orders what was written before it on every architecture. */
INLINE void record_end(struct owners_record *record, __u64 position)
{
    (void)__sync_lock_test_and_set(&record->seq, position);
}

INLINE void who_is_current(struct owners_who *who)
{
    __u64 ids = bpf_get_current_pid_tgid();
    __u64 user = bpf_get_current_uid_gid();
    who->cgroup = bpf_get_current_cgroup_id();
    who->time = bpf_ktime_get_boot_ns();
    who->tgid = ids >> 32;
    who->tid = ids;
    who->uid = user;
    who->gid = user >> 32;
    bpf_get_current_comm(who->comm, sizeof(who->comm));
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

/* The newest record of this socket and its position, or NULL. */
INLINE struct owners_record *record_of(__u64 cookie, __u64 *position)
{
    __u64 *slot = cookie_at(cookie);
    if (!slot)
        return 0;
    *position = *(volatile __u64 *)slot & (OWNERS_DONE - 1);
    struct owners_record *record = record_at(*position);
    if (!record || *(volatile __u64 *)&record->seq != *position || record->cookie != cookie)
        return 0;
    return record;
}

INLINE struct owners_bucket *bucket_at(__u64 hash)
{
    __u32 index = hash & config.bucket_mask;
    return bpf_map_lookup_elem(&buckets, &index);
}

/* The verifier follows every branch of an unrolled loop: with comparisons here it took 1.1 s to load all programs. So
 * the loops below choose by arithmetic, and hide() keeps clang from finding the comparison in it again. */
#define hide(variable) __asm__ volatile("" : "+r"(variable))

INLINE __s64 smaller(__s64 a, __s64 b)
{
    __s64 less = a - b;
    hide(less);
    return b + (less & less >> 63);
}

/* All ones if both slots have one tag, else 0. */
INLINE __s64 same_tag(__u64 a, __u64 b)
{
    __s64 difference = (a ^ b) >> OWNERS_TAG_SHIFT;
    hide(difference);
    difference = (difference - 1) >> 63;
    hide(difference);
    return difference;
}

/* Into the slot of the oldest; from the fourth record of one tag on, of the oldest with that tag, so that processes which
 * share a tuple and send by turns do not empty the bucket of others. */
INLINE void bucket_put(struct owners_bucket *bucket, __u64 hash, __u64 position)
{
    const __s64 none = 1ULL << 62;
    __u64 new = owners_slot(hash, position);
    __s64 oldest = none, oldest_same = none, same = 0;
#pragma unroll
    for (int i = 0; i < OWNERS_SLOTS; i++) {
        __u64 slot = *(volatile __u64 *)&bucket->slot[i];
        __s64 age = (slot & OWNERS_POSITION) << 3 | i;
        __s64 like = same_tag(slot, new);
        same -= like;
        oldest = smaller(age, oldest);
        oldest_same = smaller((age & like) | (none & ~like), oldest_same);
    }
    if (same >= OWNERS_SLOTS / 2)
        oldest = oldest_same;
    __u32 at = oldest & (OWNERS_SLOTS - 1);
    __u64 old = *(volatile __u64 *)&bucket->slot[at];
    if (old && (old & OWNERS_POSITION) + config.record_mask >= position)
        __sync_fetch_and_add(&state.displaced, 1);
    if (__sync_val_compare_and_swap(&bucket->slot[at], old, new) == old)
        return;
    at = (at + 1) & (OWNERS_SLOTS - 1);
    old = *(volatile __u64 *)&bucket->slot[at];
    if (__sync_val_compare_and_swap(&bucket->slot[at], old, new) != old)
        __sync_fetch_and_add(&state.collided, 1);
}

/* Is this tuple's newest record already that of this socket and process? Only the newest of the tag is looked at. */
INLINE int bucket_has(struct owners_bucket *bucket, __u64 hash, const struct owners_key *key, __u64 cookie, __u32 tgid)
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
    return record && record->seq == (__u64)newest && record->cookie == cookie && record->who.tgid == tgid &&
           owners_same(&record->key, key);
}

INLINE void publish(struct owners_record *record, __u64 position, const struct owners_key *key)
{
    __u64 hash = owners_hash(key, config.seed);
    record->key = *key;
    record_end(record, position);
    struct owners_bucket *bucket = bucket_at(hash);
    if (bucket)
        bucket_put(bucket, hash, position);
}

/* Remembers `current` as the owner of this socket; a tuple follows when the kernel has chosen it. */
INLINE int remember(void *ctx, __u8 hook)
{
    __u64 position;
    struct owners_record *record = record_begin(&position);
    if (!record)
        return 1;
    __u64 cookie = bpf_get_socket_cookie(ctx);
    record->cookie = cookie;
    record->netns = bpf_get_netns_cookie(ctx);
    record->key = (struct owners_key){.hook = hook};
    who_is_current(&record->who);
    record_end(record, position);
    cookie_set(cookie, position);
    return 1;
}

/* Only one may go on to change a record that was whole; another that comes meanwhile leaves it. */
INLINE int record_again(struct owners_record *record, __u64 position)
{
    return __sync_val_compare_and_swap(&record->seq, position, position | OWNERS_BUSY) == position;
}

/* ---- create: sockets whose later sends pass no hook of their own ---- */

SEC("cgroup/sock_create") int sock_create(struct bpf_sock *ctx)
{
    if ((ctx->type == SOCK_STREAM && (ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MPTCP)) ||
        (ctx->type == SOCK_DGRAM && (ctx->protocol == IPPROTO_UDP || ctx->protocol == IPPROTO_UDPLITE)))
        return 1;
    return remember(ctx, OWNERS_CREATE);
}

/* ---- connect: the source port is not chosen yet; sockops (TCP) or egress (UDP) adds the tuple ---- */

SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) { return remember(ctx, OWNERS_CONNECT); }
SEC("cgroup/connect6") int connect6(struct bpf_sock_addr *ctx) { return remember(ctx, OWNERS_CONNECT); }

/* ---- sendmsg: unconnected UDP, each destination ---- */

INLINE int sent(struct bpf_sock_addr *ctx, const struct owners_key *key, int connected)
{
    __u64 hash = owners_hash(key, config.seed);
    __u64 cookie = bpf_get_socket_cookie(ctx);
    struct owners_bucket *bucket = bucket_at(hash);
    if (!bucket || bucket_has(bucket, hash, key, cookie, bpf_get_current_pid_tgid() >> 32))
        return 1;
    __u64 position;
    struct owners_record *record = record_begin(&position);
    if (!record)
        return 1;
    record->cookie = cookie;
    record->netns = bpf_get_netns_cookie(ctx);
    record->key = *key;
    record->wire[0] = record->wire[1] = 0;
    who_is_current(&record->who);
    record_end(record, position);
    bucket_put(bucket, hash, position);
    if (connected) /* sendto() past its peer: egress still waits for the peer's own tuple */
        return 1;
    cookie_set(cookie, position);
    return 1;
}

SEC("cgroup/sendmsg4") int sendmsg4(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    struct owners_key key = {.family = AF_INET, .proto = ctx->protocol, .hook = OWNERS_SEND};
    key.src[0] = ctx->msg_src_ip4;
    key.dst[0] = ctx->user_ip4;
    /* 0.0.0.0 as a destination is this host: ip_route_output_key_hash_rcu(). */
    if (!key.dst[0])
        key.dst[0] = key.src[0] ? key.src[0] : 0x0100007f;
    key.sport = sk->src_port;
    key.dport = ntohs(ctx->user_port);
    return sent(ctx, &key, sk->state == BPF_TCP_ESTABLISHED);
}

SEC("cgroup/sendmsg6") int sendmsg6(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    struct owners_key key = {.family = AF_INET6, .proto = ctx->protocol, .hook = OWNERS_SEND};
    key.src[0] = join(word(ctx->msg_src_ip6[0]), word(ctx->msg_src_ip6[1]));
    key.src[1] = join(word(ctx->msg_src_ip6[2]), word(ctx->msg_src_ip6[3]));
    key.dst[0] = join(word(ctx->user_ip6[0]), word(ctx->user_ip6[1]));
    key.dst[1] = join(word(ctx->user_ip6[2]), word(ctx->user_ip6[3]));
    if (!(key.dst[0] | key.dst[1]))
        key.dst[1] = 1ULL << 56; /* :: is ::1 here: udpv6_sendmsg() */
    key.sport = sk->src_port;
    key.dport = ntohs(ctx->user_port);
    return sent(ctx, &key, sk->state == BPF_TCP_ESTABLISHED);
}

/* ---- bind: servers ---- */

INLINE int bound(struct bpf_sock *ctx, const struct owners_key *key)
{
    __u64 position;
    struct owners_record *record = record_begin(&position);
    if (!record)
        return 1;
    __u64 cookie = bpf_get_socket_cookie(ctx);
    record->cookie = cookie;
    record->netns = bpf_get_netns_cookie(ctx);
    who_is_current(&record->who);
    if (key->proto == IPPROTO_TCP) { /* not before it listens: most that bind a stream go on to connect it */
        record->key = *key;
        record_end(record, position);
    } else {
        publish(record, position, key);
    }
    cookie_set(cookie, position);
    return 1;
}

SEC("cgroup/post_bind4") int post_bind4(struct bpf_sock *ctx)
{
    struct owners_key key = {.family = AF_INET, .proto = ctx->protocol, .hook = OWNERS_BIND};
    key.src[0] = ctx->src_ip4;
    key.sport = ctx->src_port;
    return bound(ctx, &key);
}

SEC("cgroup/post_bind6") int post_bind6(struct bpf_sock *ctx)
{
    struct owners_key key = {.family = AF_INET6, .proto = ctx->protocol, .hook = OWNERS_BIND};
    __u32 a = word(ctx->src_ip6[0]), b = word(ctx->src_ip6[1]), c = word(ctx->src_ip6[2]), d = word(ctx->src_ip6[3]);
    if (mapped(a, b, c)) {
        key.family = AF_INET;
        key.src[0] = d;
    } else {
        key.src[0] = join(a, b);
        key.src[1] = join(c, d);
    }
    key.sport = ctx->src_port;
    return bound(ctx, &key);
}

/* ---- sockops: TCP, whose tuple is complete before the SYN leaves ---- */

INLINE void sockops_key(struct bpf_sock_ops *ctx, struct owners_key *key)
{
    __u32 a = 0, b = 0, c = 0, d = 0;
    key->proto = IPPROTO_TCP;
    key->sport = ctx->local_port;
    key->dport = __builtin_bswap32(ctx->remote_port);
    key->family = AF_INET;
    if (ctx->family == AF_INET6) {
        a = word(ctx->remote_ip6[0]), b = word(ctx->remote_ip6[1]), c = word(ctx->remote_ip6[2]), d = word(ctx->remote_ip6[3]);
        if (!mapped(a, b, c)) {
            key->family = AF_INET6;
            key->dst[0] = join(a, b);
            key->dst[1] = join(c, d);
            a = word(ctx->local_ip6[0]), b = word(ctx->local_ip6[1]), c = word(ctx->local_ip6[2]), d = word(ctx->local_ip6[3]);
            key->src[0] = join(a, b);
            key->src[1] = join(c, d);
            return;
        }
    }
    key->dst[0] = ctx->remote_ip4;
    key->src[0] = ctx->local_ip4;
}

/* Kept on the socket: the kernel copies it to each socket accepted from this one, so the listener is known exactly even
 * among many of one port. The map is BPF_F_CLONE. */
INLINE int listening(struct bpf_sock_ops *ctx)
{
    __u64 position;
    struct bpf_sock *sk = ctx->sk;
    struct owners_record *record = record_of(bpf_get_socket_cookie(ctx), &position);
    if (!record || !sk)
        return 1;
    struct owners_who *who = bpf_sk_storage_get(&listeners, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!who)
        return 1;
    *who = record->who;
    struct owners_key key = record->key;
    if (*(volatile __u64 *)&record->seq != position) { /* overtaken while it was copied */
        who->tgid = 0;
        return 1;
    }
    __u64 hash = owners_hash(&key, config.seed);
    struct owners_bucket *bucket = bucket_at(hash);
    if (bucket && key.hook == OWNERS_BIND)
        bucket_put(bucket, hash, position);
    return 1;
}

INLINE int accepted(struct bpf_sock_ops *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    struct owners_who *who = bpf_sk_storage_get(&listeners, sk, 0, 0);
    if (!who || !who->tgid)
        return 1;
    struct owners_key key = {.hook = OWNERS_ACCEPT};
    sockops_key(ctx, &key);
    __u64 position;
    struct owners_record *record = record_begin(&position);
    if (!record)
        return 1;
    __u64 cookie = bpf_get_socket_cookie(ctx);
    record->cookie = cookie;
    record->netns = bpf_get_netns_cookie(ctx);
    record->who = *who;
    record->who.time = bpf_ktime_get_boot_ns();
    publish(record, position, &key);
    cookie_set(cookie, position);
    return 1;
}

INLINE int connecting(struct bpf_sock_ops *ctx)
{
    __u64 position;
    struct owners_key key = {.hook = OWNERS_CONNECT};
    struct owners_record *record = record_of(bpf_get_socket_cookie(ctx), &position);
    if (!record || record->key.hook != OWNERS_CONNECT || !record_again(record, position))
        return 1;
    sockops_key(ctx, &key);
    publish(record, position, &key);
    return 1;
}

SEC("sockops") int tcp(struct bpf_sock_ops *ctx)
{
    switch (ctx->op) {
    case BPF_SOCK_OPS_TCP_CONNECT_CB:
        return connecting(ctx);
    case BPF_SOCK_OPS_TCP_LISTEN_CB:
        return listening(ctx);
    case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
        return accepted(ctx);
    }
    return 1;
}

/* ---- egress: what passes no other hook with its tuple; runs for every packet ---- */

/* The socket's tuple, not the packet's: source NAT is done by now. */
INLINE void socket_key(struct bpf_sock *sk, struct owners_key *key)
{
    key->proto = sk->protocol;
    key->sport = sk->src_port;
    key->dport = ntohs(sk->dst_port);
    if (sk->family == AF_INET6 && !mapped(word(sk->dst_ip6[0]), word(sk->dst_ip6[1]), word(sk->dst_ip6[2]))) {
        key->family = AF_INET6;
        key->src[0] = join(word(sk->src_ip6[0]), word(sk->src_ip6[1]));
        key->src[1] = join(word(sk->src_ip6[2]), word(sk->src_ip6[3]));
        key->dst[0] = join(word(sk->dst_ip6[0]), word(sk->dst_ip6[1]));
        key->dst[1] = join(word(sk->dst_ip6[2]), word(sk->dst_ip6[3]));
    } else {
        key->family = AF_INET;
        key->src[0] = sk->src_ip4;
        key->dst[0] = sk->dst_ip4;
    }
}

/* An unconnected sender has no source address before routing. What its first packet left with lets a flow that is
 * forwarded by another namespace be told from one of the same ports. */
INLINE void wire_source(struct __sk_buff *skb, struct owners_record *record, __u64 position)
{
    __u64 at[4] = {};
    if (record->key.family == AF_INET) {
        if (bpf_skb_load_bytes(skb, 12, at, 8) || at[0] >> 32 != record->key.dst[0])
            return;
        at[0] = (__u32)at[0];
    } else if (bpf_skb_load_bytes(skb, 8, at, 32) || at[2] != record->key.dst[0] || at[3] != record->key.dst[1]) {
        return;
    }
    if (!record_again(record, position))
        return;
    record->wire[0] = at[0];
    record->wire[1] = at[1];
    record_end(record, position);
}

INLINE void datagram(struct __sk_buff *skb, struct bpf_sock *sk, __u64 cookie, __u64 *slot, __u64 old)
{
    __u64 position;
    struct owners_record *record = record_of(cookie, &position);
    if (!record)
        return;
    if (record->key.hook == OWNERS_SEND) {
        wire_source(skb, record, position);
    } else if (record->key.hook == OWNERS_CONNECT && sk->state == BPF_TCP_ESTABLISHED && record_again(record, position)) {
        struct owners_key key = {.hook = OWNERS_CONNECT};
        socket_key(sk, &key);
        publish(record, position, &key);
    }
    __sync_val_compare_and_swap(slot, old, old | OWNERS_DONE);
}

/* Ping, raw, SCTP, DCCP: the packet's own tuple, as it goes out after NAT; conntrack's inverted reply is the same. */
INLINE int packet_key(struct __sk_buff *skb, struct owners_key *key)
{
    __u8 ip[40];
    __u8 l4[8];
    __u32 offset;
    if (bpf_skb_load_bytes(skb, 0, ip, 20))
        return 0;
    if (ip[0] >> 4 == 4) {
        if (((__u32)(ip[6] & 0x1f) << 8 | ip[7]) != 0) /* only the first fragment has ports */
            return 0;
        key->family = AF_INET;
        key->proto = ip[9];
        key->src[0] = *(__u32 *)(ip + 12);
        key->dst[0] = *(__u32 *)(ip + 16);
        offset = (ip[0] & 15) * 4;
    } else {
        if (bpf_skb_load_bytes(skb, 0, ip, 40))
            return 0;
        key->family = AF_INET6;
        key->proto = ip[6];
        key->src[0] = *(__u64 *)(ip + 8);
        key->src[1] = *(__u64 *)(ip + 16);
        key->dst[0] = *(__u64 *)(ip + 24);
        key->dst[1] = *(__u64 *)(ip + 32);
        offset = 40;
    }
    switch (key->proto) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
    case IPPROTO_SCTP:
    case IPPROTO_DCCP:
        if (bpf_skb_load_bytes(skb, offset, l4, 4))
            return 0;
        key->sport = (__u16)l4[0] << 8 | l4[1];
        key->dport = (__u16)l4[2] << 8 | l4[3];
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        if (bpf_skb_load_bytes(skb, offset, l4, 8))
            return 0;
        key->sport = (__u16)l4[4] << 8 | l4[5];
        key->dport = (__u16)l4[0] << 8 | l4[1];
    }
    return 1;
}

INLINE int packet(struct __sk_buff *skb, __u64 cookie)
{
    __u64 from, position;
    struct owners_record *record = record_of(cookie, &from);
    struct owners_key key = {};
    if (!record || !packet_key(skb, &key))
        return 1;
    __u64 hash = owners_hash(&key, config.seed);
    struct owners_bucket *bucket = bucket_at(hash);
    if (!bucket || bucket_has(bucket, hash, &key, cookie, record->who.tgid))
        return 1;
    struct owners_record *new = record_begin(&position);
    if (!new)
        return 1;
    new->cookie = cookie;
    new->netns = record->netns;
    new->who = record->who;
    key.hook = record->key.hook;
    new->key = key;
    if (*(volatile __u64 *)&record->seq != from) { /* overtaken while it was copied: leave nothing that could be found */
        new->cookie = 0;
        record_end(new, position);
        return 1;
    }
    new->who.time = bpf_ktime_get_boot_ns();
    record_end(new, position);
    bucket_put(bucket, hash, position);
    cookie_set(cookie, position);
    return 1;
}

/* A stream of packets costs what comes before bpf_sk_fullsock(): the header and one slot are looked at, one helper is
 * called (each takes some 10 ns where the kernel guards its returns). */
SEC("cgroup_skb/egress") int egress(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;
    __u8 *ip = (void *)(long)skb->data;
    if (!sk || ip + 20 > (__u8 *)(long)skb->data_end)
        return 1;
    __u8 protocol = ip[0] >> 4 == 4 ? ip[9] : ip[6];
    if (protocol == IPPROTO_TCP && sk->state != BPF_TCP_CLOSE) /* a raw socket is in CLOSE, unless it is connected */
        return 1;
    __u64 cookie = bpf_get_socket_cookie(skb);
    __u64 *slot = cookie_at(cookie);
    if (!slot)
        return 1;
    __u64 old = *(volatile __u64 *)slot;
    if (old & OWNERS_DONE || (old ^ owners_cookie_slot(cookie, 0)) >> OWNERS_TAG_SHIFT)
        return 1;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return 1;
    __u32 type = sk->type, kind = sk->protocol;
    if (type == SOCK_STREAM && kind == IPPROTO_TCP)
        return 1;
    if (type == SOCK_DGRAM && (kind == IPPROTO_UDP || kind == IPPROTO_UDPLITE))
        datagram(skb, sk, cookie, slot, old);
    else
        packet(skb, cookie);
    return 1;
}
