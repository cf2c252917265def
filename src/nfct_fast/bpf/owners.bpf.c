/* Notes who makes, connects and sends on sockets, as it happens. Stable UAPI only: cgroup programs, no BTF of the kernel.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Traffic is never refused or altered: every program returns 1. Owners are taken from `current` only in hooks that run
 * in the process's own system call (create, bind, connect, sendmsg); sockops and egress may run in a softirq or in a
 * queue daemon's context, and join by socket cookie instead. The oldest kernel all of it can load on is 5.12
 * (atomics that fetch are 5.12, and 5.18 on arm64; links to cgroups and bpf_get_netns_cookie 5.7). */
#include "store.h"
#include "egress.h"

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
    who_is_current(&record->who);
    record_end(record, position);
    bucket_put(bucket, hash, position, record);
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

/* The record of bind goes into the index now. Accepted sockets get none of their own: to know their listener exactly takes
 * BPF_MAP_TYPE_SK_STORAGE with BPF_F_CLONE, which cost 1.8 us a connection where all of this costs 1.9. */
INLINE int listening(struct bpf_sock_ops *ctx)
{
    __u64 position;
    struct owners_record *record = record_of(bpf_get_socket_cookie(ctx), &position);
    if (!record || record->key.hook != OWNERS_BIND)
        return 1;
    struct owners_key key = record->key;
    if (*(volatile __u64 *)&record->seq != position) /* overtaken while it was copied */
        return 1;
    __u64 hash = owners_hash(&key, config.seed);
    struct owners_bucket *bucket = bucket_at(hash);
    if (bucket)
        bucket_put(bucket, hash, position, record);
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
    }
    return 1;
}
