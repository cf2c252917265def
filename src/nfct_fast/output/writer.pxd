from nfct_fast.records.batch cimport Batch
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.text.text_buffer cimport text_buffer_t
from nfct_fast.output.sink cimport Sink

cdef class Writer:
    cdef Formatter formatter
    cdef Sink sink
    cdef text_buffer_t out            # of the last batch,
    cdef size_t sent             # of which so much has gone out,
    cdef size_t consumed_length          # so much with the lines of records that the batch was told of
    cdef text_buffer_t line
    cdef int put(self, Batch batch) noexcept nogil
    cdef bint is_pending(self) noexcept nogil
    cdef int resume(self, Batch batch) noexcept nogil
    cdef void _consume_written(self, Batch batch) noexcept nogil

cdef object writer_error(int result)      # of put(), to be raised
