from libc.stdint cimport uint32_t
from .outbuf cimport outbuf_t

cdef void status_put(outbuf_t *out, uint32_t status, const char *between) noexcept nogil
