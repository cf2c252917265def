"""Values as JSON (RFC 8259), in UTF-8 that any parser accepts: see text_buffer.pyx for what is replaced."""
from libc.string cimport strlen
from nfct_fast.text.text_buffer cimport ESCAPE_JSON, buffer_base64, buffer_escaped, buffer_put, text_buffer_t


cdef void json_label(text_buffer_t *out, const char *key, const char *word) noexcept nogil:
    if word != NULL:
        json_raw(out, key)
        buffer_put(out, b'"', 1)
        json_raw(out, word)
        buffer_put(out, b'"', 1)


cdef bint json_string(text_buffer_t *out, const char *text, size_t length, bint base64) noexcept nogil:
    cdef bint exact = True
    buffer_put(out, b'"', 1)
    if base64:
        buffer_base64(out, text, length)
    else:
        exact = buffer_escaped(out, text, length, ESCAPE_JSON)
    buffer_put(out, b'"', 1)
    return exact


cdef void json_name(text_buffer_t *out, const char *key, const char *name, size_t size) noexcept nogil:
    if size:
        json_raw(out, key)
        if not json_string(out, name, size, False):
            buffer_put(out, key, strlen(key) - 2)
            json_raw(out, b'_base64":')
            json_string(out, name, size, True)
