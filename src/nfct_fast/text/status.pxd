from libc.stdint cimport uint32_t
from nfct_fast.text.text_buffer cimport outbuf_t

cdef void status_put(outbuf_t *out, uint32_t status, const char *between) noexcept nogil
