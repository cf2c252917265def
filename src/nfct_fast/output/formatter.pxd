from nfct_fast.text.text_buffer cimport text_buffer_t
from nfct_fast.records.record cimport record_t

# Appends a record to `out` as one line, or nothing. Called without the GIL.
cdef class Formatter:
    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil
