/* SipHash-1-3 with a secret key, for texts that users choose: they must not be able to choose ones that collide. */
#ifndef NFCT_FAST_SIPHASH_H
#define NFCT_FAST_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t nfct_fast_rotate(uint64_t value, int by) { return value << by | value >> (64 - by); }

#define NFCT_FAST_SIP_ROUND(a, b, c, d)                                                                                \
    do {                                                                                                               \
        a += b;                                                                                                        \
        c += d;                                                                                                        \
        b = nfct_fast_rotate(b, 13) ^ a;                                                                               \
        d = nfct_fast_rotate(d, 16) ^ c;                                                                               \
        a = nfct_fast_rotate(a, 32);                                                                                   \
        c += b;                                                                                                        \
        a += d;                                                                                                        \
        b = nfct_fast_rotate(b, 17) ^ c;                                                                               \
        d = nfct_fast_rotate(d, 21) ^ a;                                                                               \
        c = nfct_fast_rotate(c, 32);                                                                                   \
    } while (0)

static uint64_t nfct_fast_text_hash(const uint64_t key[2], const char *data, size_t length)
{
    uint64_t a = key[0] ^ 0x736f6d6570736575ull, b = key[1] ^ 0x646f72616e646f6dull;
    uint64_t c = key[0] ^ 0x6c7967656e657261ull, d = key[1] ^ 0x7465646279746573ull;
    uint64_t word, last = (uint64_t)length << 56;
    size_t left = length;
    for (; left >= 8; left -= 8, data += 8) {
        memcpy(&word, data, 8);
        d ^= word;
        NFCT_FAST_SIP_ROUND(a, b, c, d);
        a ^= word;
    }
    word = 0;
    memcpy(&word, data, left);
    last |= word;
    d ^= last;
    NFCT_FAST_SIP_ROUND(a, b, c, d);
    a ^= last;
    c ^= 0xff;
    for (int i = 0; i < 3; i++)
        NFCT_FAST_SIP_ROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

#endif
