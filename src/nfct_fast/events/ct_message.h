/* Check that a conntrack message is safe to give to libnetfilter_conntrack. The library trusts the kernel: since 1.0.9
 * it calls exit(3) at an attribute of unexpected size, it assumes that strings are terminated, and before 1.1.0 it
 * mishandles a STOP time without a START time. */
#ifndef NFCT_FAST_CT_MESSAGE_H
#define NFCT_FAST_CT_MESSAGE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    CT_ROOT,
    CT_TUPLE,
    CT_IP,
    CT_PROTO,
    CT_PROTOINFO,
    CT_TCP,
    CT_DCCP,
    CT_SCTP,
    CT_COUNTERS,
    CT_NUMBERS,
    CT_TIMES,
    CT_NAME,
    CT_HELPER,
    CT_FORMS,
    /* What an attribute must contain: anything, a terminated string, 32-bit words, or (CT_IN | form) nested attributes
     * of that form. Any other value is the exact size in bytes. */
    CT_ANY = 0,
    CT_STRING = 0x40,
    CT_WORDS = 0x41,
    CT_IN = 0x80,
};

/* By attribute number, enum ctattr_* of linux/netfilter/nfnetlink_conntrack.h. Attributes that are not listed may
 * contain anything. */
static const uint8_t nfct_fast_ct_forms[CT_FORMS][32] = {
    [CT_ROOT] =
        {
            [1] = CT_IN | CT_TUPLE,
            [2] = CT_IN | CT_TUPLE,
            [3] = 4,
            [4] = CT_IN | CT_PROTOINFO,
            [5] = CT_IN | CT_HELPER,
            [7] = 4,
            [8] = 4,
            [9] = CT_IN | CT_COUNTERS,
            [10] = CT_IN | CT_COUNTERS,
            [11] = 4,
            [12] = 4,
            [14] = CT_IN | CT_TUPLE,
            [15] = CT_IN | CT_NUMBERS,
            [16] = CT_IN | CT_NUMBERS,
            [17] = 4,
            [18] = 2,
            [19] = CT_IN | CT_NAME,
            [20] = CT_IN | CT_TIMES,
            [22] = CT_WORDS,
            [23] = CT_WORDS,
            [24] = CT_IN | CT_NUMBERS,
        },
    [CT_TUPLE] = {[1] = CT_IN | CT_IP, [2] = CT_IN | CT_PROTO, [3] = 2},
    [CT_IP] = {[1] = 4, [2] = 4, [3] = 16, [4] = 16},
    [CT_PROTO] = {[1] = 1, [2] = 2, [3] = 2, [4] = 2, [5] = 1, [6] = 1, [7] = 2, [8] = 1, [9] = 1},
    [CT_PROTOINFO] = {[1] = CT_IN | CT_TCP, [2] = CT_IN | CT_DCCP, [3] = CT_IN | CT_SCTP},
    [CT_TCP] = {[1] = 1, [2] = 1, [3] = 1, [4] = 2, [5] = 2},
    [CT_DCCP] = {[1] = 1, [2] = 1, [3] = 8},
    [CT_SCTP] = {[1] = 1, [2] = 4, [3] = 4},
    [CT_COUNTERS] = {[1] = 8, [2] = 8, [3] = 4, [4] = 4},
    [CT_NUMBERS] = {[1] = 4, [2] = 4, [3] = 4}, /* of sequence adjustment and of synproxy */
    [CT_TIMES] = {[1] = 8, [2] = 8},
    [CT_NAME] = {[1] = CT_STRING},
    [CT_HELPER] = {[1] = CT_STRING},
};

static int nfct_fast_ct_attributes(const uint8_t *at, size_t left, int form)
{
    uint32_t seen = 0;
    while (left >= 4) {
        uint16_t length, type;
        memcpy(&length, at, 2);
        memcpy(&type, at + 2, 2);
        type &= 0x3fff;
        if (length < 4 || length > left)
            return 0;
        uint8_t rule = type < 32 ? nfct_fast_ct_forms[form][type] : CT_ANY;
        size_t size = length - 4;
        if (rule & CT_IN) {
            if ((size && size < 4) || !nfct_fast_ct_attributes(at + 4, size, rule & ~CT_IN))
                return 0;
        } else if (rule == CT_STRING) {
            if (!size || at[length - 1])
                return 0;
        } else if (rule == CT_WORDS) {
            if (!size || size % 4)
                return 0;
        } else if (rule && size != rule) {
            return 0;
        }
        if (type < 32)
            seen |= 1u << type;
        size_t step = (length + 3u) & ~3u;
        if (step >= left)
            break;
        at += step;
        left -= step;
    }
    return form != CT_TIMES || !(seen & 4) || seen & 2;
}

/* message: `length` bytes that begin with a struct nlmsghdr. */
static inline int nfct_fast_ct_message(const void *message, size_t length)
{
    enum { HEADERS = 16 + 4 }; /* struct nlmsghdr, struct nfgenmsg */
    return length >= HEADERS && nfct_fast_ct_attributes((const uint8_t *)message + HEADERS, length - HEADERS, CT_ROOT);
}

#endif
