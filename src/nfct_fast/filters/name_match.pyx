"""Match a name against a pattern that was cut at its "*" into pieces.

The name is chosen by somebody else, who must not be able to make this slow. The leftmost place of each piece leaves the
most room for those after it, so that none is ever looked for twice.
"""
from libc.string cimport memcmp

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <string.h>
    /* Not declared where a header came before without _GNU_SOURCE. */
    extern void *memmem(const void *, size_t, const void *, size_t);
    """
    void *memmem(const void *text, size_t size, const void *piece, size_t length) noexcept nogil


cdef bint _is(const char *text, const piece_t *piece) noexcept nogil:
    cdef uint32_t i
    if not piece.has_any:
        return memcmp(text, piece.at, piece.size) == 0
    for i in range(piece.size):
        if piece.at[i] != 0 and piece.at[i] != text[i]:
            return False
    return True


cdef const char *_find(const char *text, const char *end, const piece_t *piece) noexcept nogil:
    """The first place of a piece in text[0..end), or NULL."""
    if not piece.has_any:
        return <const char *>memmem(text, end - text, piece.at, piece.size)
    while <size_t>(end - text) >= piece.size:
        if _is(text, piece):
            return text
        text += 1
    return NULL


cdef bint name_match(const char *text, size_t size, const piece_t *pieces, uint32_t count) noexcept nogil:
    cdef const char *end = text + size
    cdef const piece_t *last = &pieces[count - 1]
    cdef uint32_t i
    if count == 1:
        return size == last.size and _is(text, last)
    if size < <size_t>pieces[0].size + last.size or not _is(text, pieces) or not _is(end - last.size, last):
        return False
    text += pieces[0].size
    end -= last.size
    for i in range(1, count - 1):
        text = _find(text, end, &pieces[i])
        if text == NULL:
            return False
        text += pieces[i].size
    return True
