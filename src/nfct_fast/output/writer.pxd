from nfct_fast.records.taken_records cimport TakenRecords
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.output.record_writer cimport RecordWriter
from nfct_fast.text.text_buffer cimport text_buffer_t
from nfct_fast.output.sink cimport Sink

cdef class Writer(RecordWriter):
    cdef Formatter formatter
    cdef Sink sink
    cdef text_buffer_t out           # the lines of the last batch
    cdef size_t sent                 # bytes of `out` that were written
    cdef size_t consumed_length      # bytes of `out` whose records were marked as consumed in the batch
    cdef text_buffer_t line          # scratch for a single line
    cdef void _consume_written(self, TakenRecords batch) noexcept nogil
