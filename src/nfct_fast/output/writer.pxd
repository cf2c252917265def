from nfct_fast.records.taken_records cimport TakenRecords
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.text.text_buffer cimport text_buffer_t
from nfct_fast.output.sink cimport Sink

cdef class Writer:
    cdef Formatter formatter
    cdef Sink sink
    cdef text_buffer_t out           # the lines of the last batch
    cdef size_t sent                 # bytes of `out` that were written
    cdef size_t consumed_length      # bytes of `out` whose records were marked as consumed in the batch
    cdef text_buffer_t line          # scratch for a single line
    # Format and write the rest of a batch, and consume the records whose lines were written in full. Blocks like
    # Sink.put(), and returns what that does, or -ENOMEM.
    cdef int put(self, TakenRecords batch) noexcept nogil
    # Whether put() was interrupted before everything was written: call resume() before the next put().
    cdef bint is_pending(self) noexcept nogil
    # Write the rest; as put().
    cdef int resume(self, TakenRecords batch) noexcept nogil
    cdef void _consume_written(self, TakenRecords batch) noexcept nogil

cdef object writer_error(int result)      # the exception for a -errno of put()
