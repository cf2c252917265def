/* One character of UTF-8, checked as RFC 3629 asks: no overlong form, no surrogate, nothing above U+10FFFF. */
#ifndef NFCT_FAST_UTF8_H
#define NFCT_FAST_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* How many bytes the character at data takes, its code point in *point; 0 where there is no valid character. */
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

/* Whether a terminal may act on the character, or show it as nothing, or reorder its neighbours by it: the control
 * characters C0 and C1, line and paragraph separators, format and bidirectional controls, tags, noncharacters. */
static inline int nfct_fast_is_unsafe(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0xad || point == 0x61c || point == 0x180e ||
           (point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
           (point >= 0x2060 && point <= 0x206f) || point == 0xfeff || (point >= 0xfff0 && point <= 0xfffb) ||
           (point & 0xfffe) == 0xfffe || (point >= 0xfdd0 && point <= 0xfdef) || (point >= 0xe0000 && point <= 0xe0fff);
}

#endif
