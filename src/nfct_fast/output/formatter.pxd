from nfct_fast.text.text_buffer cimport outbuf_t
from nfct_fast.records.record cimport record_t

# What turns a record into output, one line each; without the GIL.
cdef class Formatter:
    cdef void put(self, outbuf_t *out, const record_t *record) noexcept nogil
