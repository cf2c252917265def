from libc.stdint cimport uint64_t
from libc.string cimport strlen
from nfct_fast.text.text_buffer cimport buffer_put, buffer_unsigned, text_buffer_t

# Each `key` is written as it is, with what stands before it: `,"name":`.

cdef inline void json_raw(text_buffer_t *out, const char *text) noexcept nogil:
    buffer_put(out, text, strlen(text))

cdef inline void json_number(text_buffer_t *out, const char *key, uint64_t value) noexcept nogil:
    # Inline, so that the keys' lengths are known to the compiler.
    json_raw(out, key)
    buffer_unsigned(out, value)

cdef void json_label(text_buffer_t *out, const char *key, const char *word) noexcept nogil    # nothing for NULL
# Write a string, or its base64; return whether it holds exactly these bytes.
cdef bint json_string(text_buffer_t *out, const char *text, size_t length, bint base64) noexcept nogil
# Write a name of others' choice, and if it is not valid text, its bytes in base64 after it; nothing if it is empty.
cdef void json_name(text_buffer_t *out, const char *key, const char *name, size_t size) noexcept nogil
