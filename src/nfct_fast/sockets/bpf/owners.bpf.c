/* Record who creates, connects and sends on sockets when it happens, by cgroup programs with a stable UAPI, without
 * BTF. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The programs never refuse or change traffic: all return 1. They take the owner from `current` only in hooks that run
 * in the system call of the process (create, bind, connect, sendmsg). sockops and egress may run in a softirq or in the
 * context of a queue daemon, so they find the socket's record by its cookie. All of this loads from Linux 5.12 on:
 * fetching atomics need 5.12 (5.18 on arm64), cgroup links and bpf_get_netns_cookie need 5.7. */
#include "store.h"
#include "process.h"
#include "egress.h"

/* Begin a record of `current` and this socket, charged to the account. Return NULL if that is not possible. */
INLINE struct owners_record *note_for(void *ctx, __u32 account, __u64 cookie, const struct owners_key *key,
                                      const struct process_id *id, __u64 *position)
{
    if (!share_take(account, bpf_ktime_get_boot_ns()))
        return 0;
    struct owners_record *record = record_begin(position);
    if (!record)
        return 0;
    record->cookie = cookie;
    record->netns = bpf_get_netns_cookie(ctx);
    record->account = account;
    record->key = *key;
    who_is_current(record, id);
    return record;
}

INLINE struct owners_record *note_begin(void *ctx, __u64 cookie, const struct owners_key *key,
                                        const struct process_id *id, __u64 *position)
{
    return note_for(ctx, current_account(), cookie, key, id, position);
}

/* Record `current` as the owner of this socket. The tuple is added once the kernel has chosen it. */
INLINE int remember(void *ctx, __u8 hook)
{
    __u64 position, cookie = bpf_get_socket_cookie(ctx);
    struct owners_key key = {.hook = hook};
    struct process_id id;
    current_identity(&id);
    struct owners_record *record = record_of(cookie, &position);
    if (record && record->key.hook == OWNERS_BIND) /* from now on the socket receives from its peer only */
        port_changed(record->netns, record->key.proto, record->key.sport);
    /* A socket that connects repeatedly reuses its record, as long as the tuple index does not have it. */
    if (record && record->key.hook == OWNERS_CONNECT && !(record->key.flags & OWNERS_PUBLISHED) &&
        record_again(record, position)) {
        record->key.flags = 0;
        who_is_current(record, &id);
        record_end(record, position);
        return 1;
    }
    record = note_begin(ctx, cookie, &key, &id, &position);
    if (!record)
        return 1;
    record_end(record, position);
    cookie_set(cookie, position);
    return 1;
}

/* ---- create: sockets whose sends do not run any hook in the context of the process ---- */

SEC("cgroup/sock_create") int sock_create(struct bpf_sock *ctx)
{
    if ((ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP) ||
        (ctx->type == SOCK_DGRAM && (ctx->protocol == IPPROTO_UDP || ctx->protocol == IPPROTO_UDPLITE)))
        return 1;
    return remember(ctx, OWNERS_CREATE);
}

/* ---- connect: the source port is not chosen yet; sockops (TCP) or egress (UDP) adds the tuple ---- */

/* Return the record of the MPTCP socket to which this subflow belongs, and its position; NULL if it is no subflow. */
INLINE struct owners_record *subflow_maker(struct bpf_sock_addr *ctx, __u64 *position)
{
    /* ctx->sk read as a number, since the verifier allows no arithmetic on the pointer. */
    const char *sk = (const char *)kernel_word(at(ctx, hook_sock));
    const char *subflow = (const char *)kernel_word(at(sk, ulp_data));
    if (!subflow || kernel_word(at(subflow, subflow_sock)) != (__u64)sk) /* the data of another protocol, e.g. TLS */
        return 0;
    const char *owner = (const char *)kernel_word(at(subflow, subflow_conn));
    return record_of(kernel_word(at(owner, cookie)), position);
}

/* A kernel thread connects all subflows of an MPTCP socket but the first. Their owner is the maker of that socket. */
INLINE int connected_for(struct bpf_sock_addr *ctx)
{
    __u64 from, position, cookie = bpf_get_socket_cookie(ctx);
    struct owners_key key = {.hook = OWNERS_CONNECT};
    struct owners_record *maker = subflow_maker(ctx, &from);
    if (!maker || maker->key.flags & OWNERS_KERNEL)
        return 0;
    struct owners_record *record = note_for(ctx, maker->account, cookie, &key, &maker->who.id, &position);
    if (!record)
        return 1;
    __u64 time = record->who.time;
    record->who = maker->who;
    record->who.time = time;
    /* If the maker's record was replaced while it was copied, the new record stays a kernel thread's. */
    if (*(volatile __u64 *)&maker->seq == from)
        record->key.flags &= ~OWNERS_KERNEL;
    record_end(record, position);
    cookie_set(cookie, position);
    return 1;
}

INLINE int connect(struct bpf_sock_addr *ctx)
{
    if (config.task.has_subflows && current_is_kernel() && connected_for(ctx))
        return 1;
    return remember(ctx, OWNERS_CONNECT);
}

SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) { return connect(ctx); }
SEC("cgroup/connect6") int connect6(struct bpf_sock_addr *ctx) { return connect(ctx); }

/* ---- getpeername: accept(2) runs this hook in the context of the process if it has to return the peer's address.
 * accept(2) has no other hook. If this one does not run, only the owner of the listener is known ---- */

/* Whether accept(2) may return a socket in this state. The peer may have finished already (CLOSE_WAIT), or not quite
 * begun (SYN_RECV, TCP Fast Open). accept(2) also returns one that was reset, but in CLOSE it has no port any more. */
INLINE int is_acceptable(__u32 state)
{
    return state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE_WAIT || state == BPF_TCP_SYN_RECV;
}

INLINE int accepted(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    if (!sk || ctx->protocol != IPPROTO_TCP || !is_acceptable(sk->state))
        return 1;
    __u64 position, cookie = bpf_get_socket_cookie(ctx);
    if (record_of(cookie, &position)) /* the socket was connected here, or this is not the first call */
        return 1;
    struct owners_key key = {.hook = OWNERS_ACCEPT};
    struct process_id id;
    socket_key(sk, &key);
    current_identity(&id);
    struct owners_record *record = note_begin(ctx, cookie, &key, &id, &position);
    if (!record)
        return 1;
    publish(record, position, &key);
    cookie_set(cookie, position);
    return 1;
}

SEC("cgroup/getpeername4") int getpeername4(struct bpf_sock_addr *ctx) { return accepted(ctx); }
SEC("cgroup/getpeername6") int getpeername6(struct bpf_sock_addr *ctx) { return accepted(ctx); }

/* ---- sendmsg: unconnected UDP, each destination ---- */

INLINE int sent(struct bpf_sock_addr *ctx, const struct owners_key *key, int connected)
{
    __u64 netns = bpf_get_netns_cookie(ctx), hash = owners_hash(key, netns, config.seed);
    __u64 position, cookie = bpf_get_socket_cookie(ctx);
    struct owners_bucket *bucket = bucket_now(hash);
    struct process_id id;
    current_identity(&id);
    if (!bucket || bucket_has(bucket, hash, key, cookie, &id))
        return 1;
    /* On the first datagram the kernel may have chosen the port. The first 2^19 sockets have an empty slot's tag. */
    __u64 *slot = cookie_at(cookie), known = slot ? *(volatile __u64 *)slot : 0;
    if (!connected && (!known || (known ^ owners_cookie_slot(cookie, 0)) >> OWNERS_TAG_SHIFT))
        port_changed(netns, key->proto, key->sport);
    struct owners_record *record = note_begin(ctx, cookie, key, &id, &position);
    if (!record)
        return 1;
    record->key.flags |= OWNERS_PUBLISHED;
    record_end(record, position);
    bucket_put(bucket, hash, position, record);
    if (!connected) /* a sendto() another address must not stop egress from adding the tuple of the peer */
        cookie_set(cookie, position);
    return 1;
}

/* A datagram of a connected socket without an explicit address comes here if control messages give it another source.
 * The hook does not get the destination then, which is the socket's peer. */

SEC("cgroup/sendmsg4") int sendmsg4(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    struct owners_key key = {.family = AF_INET, .proto = ctx->protocol, .hook = OWNERS_SEND};
    key.src[0] = ctx->msg_src_ip4;
    __u32 to = ctx->user_ip4, port = ctx->user_port;
    hide(to); /* or clang would load through a conditionally selected pointer, which the verifier rejects */
    hide(port);
    int connected = sk->state == BPF_TCP_ESTABLISHED;
    if (connected && !port) {
        to = sk->dst_ip4;
        port = sk->dst_port;
    }
    key.dst[0] = to;
    if (!key.src[0])
        key.flags = OWNERS_UNSOURCED;
    /* The destination 0.0.0.0 is this host: ip_route_output_key_hash_rcu(). */
    if (!key.dst[0])
        key.dst[0] = key.src[0] ? key.src[0] : 0x0100007f;
    key.sport = sk->src_port;
    key.dport = ntohs(port);
    return sent(ctx, &key, connected);
}

SEC("cgroup/sendmsg6") int sendmsg6(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    struct owners_key key = {.family = AF_INET6, .proto = ctx->protocol, .hook = OWNERS_SEND};
    key.src[0] = join(word(ctx->msg_src_ip6[0]), word(ctx->msg_src_ip6[1]));
    key.src[1] = join(word(ctx->msg_src_ip6[2]), word(ctx->msg_src_ip6[3]));
    if (!(key.src[0] | key.src[1]))
        key.flags = OWNERS_UNSOURCED;
    __u32 port = ctx->user_port;
    hide(port);
    int connected = sk->state == BPF_TCP_ESTABLISHED;
    key.dst[0] = join(word(ctx->user_ip6[0]), word(ctx->user_ip6[1]));
    key.dst[1] = join(word(ctx->user_ip6[2]), word(ctx->user_ip6[3]));
    if (connected && !port) {
        key.dst[0] = join(word(sk->dst_ip6[0]), word(sk->dst_ip6[1]));
        key.dst[1] = join(word(sk->dst_ip6[2]), word(sk->dst_ip6[3]));
        port = sk->dst_port;
    }
    if (!(key.dst[0] | key.dst[1]))
        key.dst[1] = 1ULL << 56; /* the destination :: is ::1: udpv6_sendmsg() */
    key.sport = sk->src_port;
    key.dport = ntohs(port);
    return sent(ctx, &key, connected);
}

/* ---- bind: servers ---- */

INLINE int bound(struct bpf_sock *ctx, const struct owners_key *key)
{
    __u64 position, cookie = bpf_get_socket_cookie(ctx);
    struct process_id id;
    current_identity(&id);
    port_changed(bpf_get_netns_cookie(ctx), key->proto, key->sport);
    struct owners_record *record = note_begin(ctx, cookie, key, &id, &position);
    if (!record)
        return 1;
    record_end(record, position);
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
        a = word(ctx->remote_ip6[0]), b = word(ctx->remote_ip6[1]), c = word(ctx->remote_ip6[2]),
        d = word(ctx->remote_ip6[3]);
        if (!mapped(a, b, c)) {
            key->family = AF_INET6;
            key->dst[0] = join(a, b);
            key->dst[1] = join(c, d);
            a = word(ctx->local_ip6[0]), b = word(ctx->local_ip6[1]), c = word(ctx->local_ip6[2]),
            d = word(ctx->local_ip6[3]);
            key->src[0] = join(a, b);
            key->src[1] = join(c, d);
            return;
        }
    }
    key->dst[0] = ctx->remote_ip4;
    key->src[0] = ctx->local_ip4;
}

INLINE int listening(struct bpf_sock_ops *ctx)
{
    port_changed(bpf_get_netns_cookie(ctx), IPPROTO_TCP, ctx->local_port);
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

/* ---- release: one socket less at the port. Its records stay valid for its flows. The hook cannot read the port, so
 * for a socket that has no record (any more) the change is not counted, and only a watch notices it ---- */

SEC("cgroup/sock_release") int sock_release(struct bpf_sock *ctx)
{
    __u32 protocol = ctx->protocol;
    if (protocol == IPPROTO_TCP ? ctx->state != BPF_TCP_LISTEN : protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE)
        return 1;
    __u64 position;
    __u64 cookie = bpf_get_socket_cookie(ctx);
    struct owners_record *record = record_of(cookie, &position);
    if (record && record->key.sport)
        port_changed(record->netns, protocol, record->key.sport);
    watched_gone(cookie);
    return 1;
}
