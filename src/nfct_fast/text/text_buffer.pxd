from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

# Bytes on their way out. A failed allocation is remembered in `failed` and everything after it is dropped, so that
# a writer checks once a batch, not once a field.
ctypedef struct outbuf_t:
    char *data
    size_t length
    size_t capacity
    bint failed

cdef enum:
    ESCAPE_SPACE = 1     # the field is not the last of its line: a space in it would end it
    ESCAPE_JSON = 2
    ESCAPE_NUL = 4       # a NUL stands for a space, as between the arguments of a command line

cdef void outbuf_free(outbuf_t *out) noexcept nogil
cdef bint outbuf_grow(outbuf_t *out, size_t more) noexcept nogil
cdef void outbuf_unsigned(outbuf_t *out, uint64_t value) noexcept nogil
cdef void outbuf_signed(outbuf_t *out, int64_t value) noexcept nogil
# Whether what was put says exactly what data has; False only with ESCAPE_JSON, see outbuf.pyx.
cdef bint outbuf_escaped(outbuf_t *out, const char *data, size_t length, int how) noexcept nogil
cdef void outbuf_base64(outbuf_t *out, const char *data, size_t length) noexcept nogil

cdef inline void outbuf_put(outbuf_t *out, const char *data, size_t length) noexcept nogil:
    if out.length + length <= out.capacity or outbuf_grow(out, length):
        memcpy(out.data + out.length, data, length)
        out.length += length
