from libc.stdint cimport int64_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef class TimeFormat:
    cdef bytes format
    cdef const char *pattern
    cdef char text[1024]
    cdef void _render(self, int64_t second) noexcept nogil
    cdef int length
    cdef int micros[8]           # offsets in the text of the six digits of each %f
    cdef int micro_count
    cdef int64_t second          # since the epoch: what the text was made for
    cdef void put(self, text_buffer_t *out, int64_t time) noexcept nogil
