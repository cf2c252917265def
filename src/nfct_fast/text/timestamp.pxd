from libc.stdint cimport int64_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef class TimeFormat:
    cdef bytes format
    cdef const char *pattern
    cdef char text[1024]
    cdef void _render(self, int64_t second) noexcept nogil
    cdef int length
    cdef int micros[8]           # where in the text the six digits of each %f stand
    cdef int micro_count
    cdef int64_t second          # the one the text is for
    cdef void put(self, text_buffer_t *out, int64_t time) noexcept nogil
