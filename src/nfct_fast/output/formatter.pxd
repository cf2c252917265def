from nfct_fast.text.text_buffer cimport text_buffer_t
from nfct_fast.records.record cimport record_t

# What turns a record into output, one line each; without the GIL.
cdef class Formatter:
    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil
