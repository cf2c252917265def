/* Texts that each have one number, in the form of an Arrow array of utf8: for what many rows have in common. */
#ifndef NFCT_FAST_TEXT_DICTIONARY_H
#define NFCT_FAST_TEXT_DICTIONARY_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "nfct_fast/text/siphash.h"
#include "nfct_fast/text/utf8.h"

struct nfct_fast_dictionary {
    int32_t *offsets; /* count + 1 of them */
    char *text;
    int32_t *slots; /* the number of a text, by its hash; -1: none. NULL once no more will be added */
    int32_t count;
    int32_t room;    /* texts that `offsets` has room for */
    uint32_t mask;   /* slots - 1 */
    size_t length;   /* bytes of text */
    size_t capacity; /* bytes that there is room for */
};

/* Write the text as JSON has it: U+FFFD in place of each byte that is not UTF-8, of U+0000 and of noncharacters. A NUL
 * becomes `nul` if that is not 0. `out` has room for 3 * size bytes; returns how many were written. */
static size_t nfct_fast_valid_text(char *out, const char *data, size_t size, char nul)
{
    const unsigned char *at = (const unsigned char *)data, *end = at + size;
    char *to = out;
    uint32_t point = 0;
    while (at < end) {
        if (*at && *at < 0x80) {
            *to++ = (char)*at++;
            continue;
        }
        int bytes = nfct_fast_utf8(at, (size_t)(end - at), &point);
        if (*at == 0 && nul) {
            *to++ = nul;
        } else if (bytes == 0 || point == 0 || nfct_fast_is_noncharacter(point)) {
            memcpy(to, "\xef\xbf\xbd", 3);
            to += 3;
        } else {
            memcpy(to, at, (size_t)bytes);
            to += bytes;
        }
        at += bytes ? bytes : 1;
    }
    return (size_t)(to - out);
}

static int nfct_fast_dictionary_widen(struct nfct_fast_dictionary *one, const uint64_t key[2])
{
    int32_t room = one->room ? one->room * 2 : 16;
    uint32_t mask = (uint32_t)room * 2 - 1;
    int32_t *offsets, *slots;
    if (one->room > INT32_MAX / 4 || !(offsets = realloc(one->offsets, ((size_t)room + 1) * sizeof(*offsets))))
        return -1;
    one->offsets = offsets;
    if (!one->room)
        offsets[0] = 0;
    if (!(slots = malloc(((size_t)mask + 1) * sizeof(*slots))))
        return -1;
    memset(slots, 0xff, ((size_t)mask + 1) * sizeof(*slots));
    for (int32_t i = 0; i < one->count; i++) {
        uint32_t at = (uint32_t)nfct_fast_text_hash(key, one->text + offsets[i], (size_t)(offsets[i + 1] - offsets[i]));
        while (slots[at & mask] >= 0)
            at++;
        slots[at & mask] = i;
    }
    free(one->slots);
    one->slots = slots;
    one->mask = mask;
    one->room = room;
    return 0;
}

/* The number of a text, which is added if it is new; -1 without memory. */
static int32_t nfct_fast_dictionary_number(struct nfct_fast_dictionary *one, const uint64_t key[2], const char *data,
                                           size_t size, char nul)
{
    if (size > INT32_MAX / 4 || one->length + 3 * size > INT32_MAX)
        return -1;
    if (one->count == one->room && nfct_fast_dictionary_widen(one, key) < 0)
        return -1;
    if (one->length + 3 * size >= one->capacity) {
        size_t capacity = (one->length + 3 * size + 64) * 2;
        char *text = realloc(one->text, capacity);
        if (!text)
            return -1;
        one->text = text;
        one->capacity = capacity;
    }
    char *text = one->text + one->length;
    size_t length = nfct_fast_valid_text(text, data, size, nul);
    uint32_t at = (uint32_t)nfct_fast_text_hash(key, text, length);
    for (int32_t i; (i = one->slots[at & one->mask]) >= 0; at++) {
        int32_t begin = one->offsets[i];
        if ((size_t)(one->offsets[i + 1] - begin) == length && memcmp(one->text + begin, text, length) == 0)
            return i;
    }
    one->slots[at & one->mask] = one->count;
    one->length += length;
    one->offsets[++one->count] = (int32_t)one->length;
    return one->count - 1;
}

static void nfct_fast_dictionary_free(struct nfct_fast_dictionary *one)
{
    free(one->offsets);
    free(one->text);
    free(one->slots);
    memset(one, 0, sizeof(*one));
}

#endif
