/* Decode UTF-8 by RFC 3629 (no overlong form, no surrogate, nothing above U+10FFFF), and tell unsafe characters. */
#ifndef NFCT_FAST_UTF8_H
#define NFCT_FAST_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decode the character at `data` into *point. Return its size in bytes; 0 if there is no valid character. */
static inline int nfct_fast_utf8(const unsigned char *data, size_t length, uint32_t *point)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = data[0];
    int size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (size == 0 || (size_t)size > length)
        return 0;
    uint32_t value = size == 1 ? first : first & (0x7f >> size);
    for (int i = 1; i < size; i++) {
        if ((data[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (data[i] & 0x3f);
    }
    if (value < least[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *point = value;
    return size;
}

/* Which bytes cannot be copied as they are: 1: never, 2: not where a space would end the field, 4: not inside a JSON
 * string. */
static const unsigned char nfct_fast_special[256] = {
    [0 ... 0x1f] = 1, [' '] = 2, ['"'] = 4, ['\\'] = 1, [0x7f ... 0xff] = 1,
};

static inline int nfct_fast_is_noncharacter(uint32_t point)
{
    return point >= 0xfdd0 && (point <= 0xfdef || (point & 0xfffe) == 0xfffe);
}

/* Whether a terminal may act on the character, show nothing or a blank for it, or reorder its neighbours, or whether
 * another program may end a field at it: the control characters C0 and C1, all separators (Z*) except the space,
 * characters without ink (U+2800, U+3164, U+1D159), bidirectional controls, default-ignorable characters
 * (DerivedCoreProperties.txt), interlinear annotation, noncharacters. */
static inline int nfct_fast_is_unsafe(uint32_t point)
{
    static const struct {
        uint32_t first, last;
    } unsafe[] = {
        {0x00, 0x1f},       {0x7f, 0xa0},       {0xad, 0xad},       {0x34f, 0x34f},   {0x61c, 0x61c},
        {0x115f, 0x1160},   {0x1680, 0x1680},   {0x17b4, 0x17b5},   {0x180b, 0x180f}, {0x2000, 0x200f},
        {0x2028, 0x202f},   {0x205f, 0x206f},   {0x2800, 0x2800},   {0x3000, 0x3000}, {0x3164, 0x3164},
        {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffb}, {0x1bca0, 0x1bca3},
        {0x1d159, 0x1d159}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
    };
    if (nfct_fast_is_noncharacter(point))
        return 1;
    for (size_t i = 0; i < sizeof(unsafe) / sizeof(*unsafe) && point >= unsafe[i].first; i++)
        if (point <= unsafe[i].last)
            return 1;
    return 0;
}

#endif
