from libc.stdint cimport uint32_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef void status_put(text_buffer_t *out, uint32_t status, const char *between) noexcept nogil
