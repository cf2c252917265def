/* SHA-1 (FIPS 180-4) of messages that are at hand as a whole: for identifiers, which others compute as well. Not
 * for secrets: SHA-1 does not resist whoever can choose both of two messages.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_SHA1_H
#define NFCT_FAST_SHA1_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SHA1_SIZE = 20, SHA1_BLOCK = 64 };

static inline uint32_t sha1_rotate(uint32_t value, int by) { return value << by | value >> (32 - by); }

static inline void sha1_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t words[80];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
                   block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        words[i] = sha1_rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
/* One loop for each of the four functions: a choice in each round costs a third more. */
#define SHA1_ROUNDS(begin, mix, constant)                                                                              \
    for (int i = begin; i < (begin) + 20; i++) {                                                                       \
        uint32_t mixed = (mix) + sha1_rotate(a, 5) + e + (constant) + words[i];                                        \
        e = d;                                                                                                         \
        d = c;                                                                                                         \
        c = sha1_rotate(b, 30);                                                                                        \
        b = a;                                                                                                         \
        a = mixed;                                                                                                     \
    }
    SHA1_ROUNDS(0, d ^ (b & (c ^ d)), 0x5a827999)
    SHA1_ROUNDS(20, b ^ c ^ d, 0x6ed9eba1)
    SHA1_ROUNDS(40, (b & c) | (d & (b | c)), 0x8f1bbcdc)
    SHA1_ROUNDS(60, b ^ c ^ d, 0xca62c1d6)
#undef SHA1_ROUNDS
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* The digest of data[0..size). */
static inline void nfct_fast_sha1(const void *data, size_t size, unsigned char digest[SHA1_SIZE])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const unsigned char *at = data;
    unsigned char last[2 * SHA1_BLOCK];
    size_t left = size, padded;
    for (; left >= SHA1_BLOCK; left -= SHA1_BLOCK, at += SHA1_BLOCK)
        sha1_block(state, at);
    padded = left < SHA1_BLOCK - 8 ? SHA1_BLOCK : 2 * SHA1_BLOCK;
    memset(last, 0, padded);
    memcpy(last, at, left);
    last[left] = 0x80;
    for (int i = 0; i < 8; i++)
        last[padded - 1 - i] = (unsigned char)((uint64_t)size * 8 >> 8 * i);
    sha1_block(state, last);
    if (padded > SHA1_BLOCK)
        sha1_block(state, last + SHA1_BLOCK);
    for (int i = 0; i < SHA1_SIZE; i++)
        digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}

#endif
