"""Match a name against a pattern that was cut at its "*" into pieces."""
from libc.stdint cimport uint32_t

ctypedef struct piece_t:
    const char *at           # NUL stands for any one byte: no name has a NUL
    uint32_t size
    bint has_any             # it has such a NUL

# Whether the whole of text[0..size) is the pieces in this order, with anything between them. Takes size times the sum
# of the pieces' sizes at the most, and about `size` where no piece has NULs.
cdef bint name_match(const char *text, size_t size, const piece_t *pieces, uint32_t count) noexcept nogil
