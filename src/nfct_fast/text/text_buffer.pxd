from libc.stdint cimport uint64_t
from libc.string cimport memcpy

# A growing buffer of output. If an allocation fails, `failed` is set and everything appended afterwards is dropped, so
# that a writer has to check only once per batch, not once per field.
ctypedef struct text_buffer_t:
    char *data
    size_t length
    size_t capacity
    bint failed

cdef enum:
    ESCAPE_SPACE = 1     # escape spaces, which would end a field that is not the last of its line
    ESCAPE_JSON = 2      # escape as inside a JSON string
    ESCAPE_NUL = 4       # write a NUL, as between the arguments of a command line, as a space

cdef void buffer_free(text_buffer_t *out) noexcept nogil
# Return what is in a buffer as a str, and free it. UnicodeDecodeError if it is not UTF-8, MemoryError.
cdef str buffer_object(text_buffer_t *out)
cdef bint buffer_grow(text_buffer_t *out, size_t more) noexcept nogil
cdef void buffer_unsigned(text_buffer_t *out, uint64_t value) noexcept nogil
# Append `data`, escaped. Returns whether the result stands for exactly these bytes; False only with ESCAPE_JSON, see
# text_buffer.pyx.
cdef bint buffer_escaped(text_buffer_t *out, const char *data, size_t length, int how) noexcept nogil
cdef void buffer_base64(text_buffer_t *out, const char *data, size_t length) noexcept nogil

cdef inline void buffer_put(text_buffer_t *out, const char *data, size_t length) noexcept nogil:
    # memcpy() of nothing from or to NULL, as an empty buffer has it, is undefined in C.
    if length and (out.length + length <= out.capacity or buffer_grow(out, length)):
        memcpy(out.data + out.length, data, length)
        out.length += length
