"""A growing buffer of output, and the escaping of what other processes control.

In text, a backslash, a control character and a byte that is not UTF-8 become \\\\, \\n, \\x1b, \\xff, \\u202e as in a
Python literal: nothing printed can end a line, drive a terminal or be taken for something else.

In JSON, U+FFFD replaces what strict readers reject: bytes that are not UTF-8 (most readers reject a lone surrogate),
U+0000 (PostgreSQL's jsonb has none) and noncharacters (RFC 7493 forbids them). The caller then adds the bytes
themselves in base64.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef extern from * nogil:
    """
    static const char nfct_fast_pairs[] =
        "00010203040506070809" "10111213141516171819" "20212223242526272829" "30313233343536373839"
        "40414243444546474849" "50515253545556575859" "60616263646566676869" "70717273747576777879"
        "80818283848586878889" "90919293949596979899";
    """
    const char PAIRS "nfct_fast_pairs"[200]

cdef extern from "nfct_fast/text/utf8.h" nogil:
    int nfct_fast_utf8(const unsigned char *data, size_t length, uint32_t *point)
    int nfct_fast_is_unsafe(uint32_t point)
    int nfct_fast_is_noncharacter(uint32_t point)
    const unsigned char nfct_fast_special[256]

cdef extern from "nfct_fast/text/base64.h" nogil:
    const char BASE64_DIGITS "nfct_fast_base64_digits"[65]
    size_t nfct_fast_base64(const unsigned char *data, size_t size, const char *digits, char *out)


cdef void buffer_free(text_buffer_t *out) noexcept nogil:
    free(out.data)
    out.data = NULL
    out.length = out.capacity = 0


cdef str buffer_object(text_buffer_t *out):
    try:
        if out.failed:
            raise MemoryError("text")
        return out.data[:out.length].decode("utf-8") if out.length else ""
    finally:
        buffer_free(out)


cdef bint buffer_grow(text_buffer_t *out, size_t more) noexcept nogil:
    cdef size_t capacity = out.capacity
    cdef char *data
    if out.failed:
        return False
    while capacity < out.length + more:
        capacity = capacity * 2 if capacity else 65536
    data = <char *>realloc(out.data, capacity)
    if data == NULL:
        out.failed = True
        return False
    out.data = data
    out.capacity = capacity
    return True


cdef void buffer_unsigned(text_buffer_t *out, uint64_t value) noexcept nogil:
    # Two digits at a time: half of the divisions.
    cdef char digits[20]
    cdef int at = 20
    while value >= 100:
        at -= 2
        memcpy(digits + at, PAIRS + 2 * (value % 100), 2)
        value //= 100
    if value >= 10:
        at -= 2
        memcpy(digits + at, PAIRS + 2 * value, 2)
    else:
        at -= 1
        digits[at] = <char>(48 + value)
    buffer_put(out, digits + at, 20 - at)


cdef void _put_code(text_buffer_t *out, uint32_t point, bint is_byte, int how) noexcept nogil:
    cdef char text[16]
    cdef int length
    cdef uint32_t rest
    if how & ESCAPE_JSON:
        if point > 0xffff:      # RFC 8259 has only surrogate pairs for these
            rest = point - 0x10000
            length = snprintf(text, sizeof(text), b"\\u%04x\\u%04x", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff))
        else:
            length = snprintf(text, sizeof(text), b"\\u%04x", point)
    elif point == 10:
        length = snprintf(text, sizeof(text), b"\\n")
    elif point == 13:
        length = snprintf(text, sizeof(text), b"\\r")
    elif point == 9:
        length = snprintf(text, sizeof(text), b"\\t")
    elif point < 0x100 and (is_byte or point < 0x80):
        length = snprintf(text, sizeof(text), b"\\x%02x", point)
    elif point <= 0xffff:
        length = snprintf(text, sizeof(text), b"\\u%04x", point)
    else:
        length = snprintf(text, sizeof(text), b"\\U%08x", point)
    buffer_put(out, text, length)


cdef bint buffer_escaped(text_buffer_t *out, const char *data, size_t length, int how) noexcept nogil:
    cdef const unsigned char *bytes = <const unsigned char *>data
    cdef size_t at = 0
    cdef size_t begin
    cdef char *to
    cdef uint32_t point = 0
    cdef int size
    cdef bint exact = True
    cdef unsigned char special = 1 | (2 if how & ESCAPE_SPACE else 0) | (4 if how & ESCAPE_JSON else 0)
    while at < length:
        if out.length + length - at > out.capacity and not buffer_grow(out, length - at):
            return exact
        to = out.data + out.length
        begin = at
        while at < length and not nfct_fast_special[bytes[at]] & special:
            to[at - begin] = data[at]
            at += 1
        out.length += at - begin
        if at == length:
            return exact
        if bytes[at] == 0 and how & ESCAPE_NUL:
            buffer_put(out, b" ", 1)
            at += 1
            continue
        size = nfct_fast_utf8(bytes + at, length - at, &point)
        if how & ESCAPE_JSON and (size == 0 or point == 0 or nfct_fast_is_noncharacter(point)):
            buffer_put(out, b"\xef\xbf\xbd", 3)
            exact = False
            size = max(size, 1)
        elif size == 0:
            _put_code(out, bytes[at], True, how)
            size = 1
        elif point == 0x5c or point == 0x22:
            buffer_put(out, b"\\", 1)
            buffer_put(out, data + at, 1)
        elif point == 0x20 or nfct_fast_is_unsafe(point):
            _put_code(out, point, False, how)
        else:
            buffer_put(out, data + at, size)
        at += size
    return exact


cdef void buffer_base64(text_buffer_t *out, const char *data, size_t length) noexcept nogil:
    cdef size_t size = (length + 2) // 3 * 4
    if out.length + size <= out.capacity or buffer_grow(out, size):
        out.length += nfct_fast_base64(<const unsigned char *>data, length, BASE64_DIGITS, out.data + out.length)


def escape(bytes data not None, bint space=False, bint json=False, bint base64=False) -> bytes:
    """Escape bytes as the output does.

    Args:
        data: The bytes.
        space: Escape spaces, too.
        json: Escape as inside a JSON string instead.
        base64: With `json`, return the base64 that is printed beside the string; nothing if the string is exact.
    """
    cdef text_buffer_t out
    out.data = NULL
    out.length = out.capacity = 0
    out.failed = False
    exact = buffer_escaped(&out, data, len(data), (ESCAPE_SPACE if space else 0) | (ESCAPE_JSON if json else 0))
    if base64:
        out.length = 0
        if not exact:
            buffer_base64(&out, data, len(data))
    if out.failed:
        buffer_free(&out)
        raise MemoryError("escape")
    try:
        return out.data[:out.length] if out.length else b""
    finally:
        buffer_free(&out)
