/* The program that runs for each outgoing packet, for tuples that no other hook sees. It may run in a softirq or in the
 * context of any process (a queue daemon), so it takes the owner from the socket's record, never from `current`.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_BPF_EGRESS_H
#define NFCT_FAST_BPF_EGRESS_H

#include "process.h"

/* Fill in the tuple of the socket, not of the packet, in which source NAT has already changed addresses. */
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

/* Add the source address of the first packet to the record of an unconnected sender, which has none before routing. It
 * distinguishes the flow from forwarded ones with the same ports. */
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
    record->key.src[0] = at[0];
    record->key.src[1] = at[1];
    record_end(record, position);
}

INLINE void datagram(struct __sk_buff *skb, struct bpf_sock *sk, __u64 cookie, __u64 *slot, __u64 old)
{
    __u64 position;
    struct owners_record *record = record_of(cookie, &position);
    if (!record)
        return;
    if (record->key.hook == OWNERS_SEND && record->key.flags & OWNERS_UNSOURCED) {
        wire_source(skb, record, position);
    } else if (record->key.hook == OWNERS_CONNECT && sk->state == BPF_TCP_ESTABLISHED &&
               record_again(record, position)) {
        struct owners_key key = {.hook = OWNERS_CONNECT};
        socket_key(sk, &key);
        publish(record, position, &key);
    }
    __sync_val_compare_and_swap(slot, old, old | OWNERS_DONE);
}

/* Fill in the tuple of a packet of a ping, raw, SCTP or DCCP socket, as it leaves after NAT: conntrack's inverted
 * reply. */
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
    __u64 now = bpf_ktime_get_boot_ns(), hash = owners_hash(&key, record->netns, config.seed);
    struct owners_bucket *bucket = bucket_now(hash);
    if (!bucket || bucket_has(bucket, hash, &key, cookie, &record->who.id) || !share_take(record->account, now))
        return 1;
    struct owners_record *new = record_begin(&position);
    if (!new)
        return 1;
    new->cookie = cookie;
    new->netns = record->netns;
    new->who = record->who;
    new->account = record->account;
    key.hook = record->key.hook;
    key.flags = (record->key.flags & OWNERS_KERNEL) | OWNERS_PUBLISHED;
    new->key = key;
    if (*(volatile __u64 *)&record->seq != from) { /* replaced while it was copied: make the copy unfindable */
        new->cookie = 0;
        record_end(new, position);
        return 1;
    }
    new->who.time = now;
    record_end(new, position);
    bucket_put(bucket, hash, position, new);
    cookie_set(cookie, position);
    return 1;
}

/* For most packets only the part before bpf_sk_fullsock() runs. It reads the header and one slot, and calls one BPF
 * helper, which takes about 10 ns on kernels with return thunks. */
SEC("cgroup_skb/egress") int egress(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;
    __u8 *ip = (void *)(long)skb->data;
    if (!sk || ip + 20 > (__u8 *)(long)skb->data_end)
        return 1;
    __u8 protocol = ip[0] >> 4 == 4 ? ip[9] : ip[6];
    if (protocol == IPPROTO_TCP && sk->state != BPF_TCP_CLOSE) /* an unconnected raw socket is in state CLOSE */
        return 1;
    __u64 cookie = bpf_get_socket_cookie(skb);
    __u64 *slot = cookie_at(cookie);
    if (!slot)
        return 1;
    __u64 old = *(volatile __u64 *)slot;
    if (!old || old & OWNERS_DONE || (old ^ owners_cookie_slot(cookie, 0)) >> OWNERS_TAG_SHIFT)
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

#endif
