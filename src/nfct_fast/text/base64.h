/* Base64 (RFC 4648).
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_BASE64_H
#define NFCT_FAST_BASE64_H

#include <stddef.h>
#include <stdint.h>

static const char nfct_fast_base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char nfct_fast_base64_url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Writes 4 characters for each 3 bytes begun, and returns how many. */
static inline size_t nfct_fast_base64(const unsigned char *data, size_t size, const char *digits, char *out)
{
    size_t written = 0;
    for (size_t at = 0; at < size; at += 3) {
        size_t left = size - at;
        uint32_t bits =
            (uint32_t)data[at] << 16 | (left > 1 ? (uint32_t)data[at + 1] << 8 : 0) | (left > 2 ? data[at + 2] : 0);
        out[written++] = digits[bits >> 18];
        out[written++] = digits[bits >> 12 & 63];
        out[written++] = left > 1 ? digits[bits >> 6 & 63] : '=';
        out[written++] = left > 2 ? digits[bits & 63] : '=';
    }
    return written;
}

#endif
