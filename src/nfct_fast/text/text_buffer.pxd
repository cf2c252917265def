from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

# Bytes on their way out. A failed allocation is remembered in `failed` and everything after it is dropped, so that
# a writer checks once a batch, not once a field.
ctypedef struct text_buffer_t:
    char *data
    size_t length
    size_t capacity
    bint failed

cdef enum:
    ESCAPE_SPACE = 1     # the field is not the last of its line: a space in it would end it
    ESCAPE_JSON = 2
    ESCAPE_NUL = 4       # a NUL stands for a space, as between the arguments of a command line

cdef void buffer_free(text_buffer_t *out) noexcept nogil
cdef bint buffer_grow(text_buffer_t *out, size_t more) noexcept nogil
cdef void buffer_unsigned(text_buffer_t *out, uint64_t value) noexcept nogil
cdef void buffer_signed(text_buffer_t *out, int64_t value) noexcept nogil
# Whether what was put says exactly what data has; False only with ESCAPE_JSON, see outbuf.pyx.
cdef bint buffer_escaped(text_buffer_t *out, const char *data, size_t length, int how) noexcept nogil
cdef void buffer_base64(text_buffer_t *out, const char *data, size_t length) noexcept nogil

cdef inline void buffer_put(text_buffer_t *out, const char *data, size_t length) noexcept nogil:
    if out.length + length <= out.capacity or buffer_grow(out, length):
        memcpy(out.data + out.length, data, length)
        out.length += length
