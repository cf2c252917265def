from .batch cimport Batch
from .formatter cimport Formatter
from .outbuf cimport outbuf_t
from .sink cimport Sink

cdef class Writer:
    cdef Formatter formatter
    cdef Sink sink
    cdef outbuf_t out
    cdef int put(self, Batch batch) noexcept nogil

cdef object writer_error(int result)      # of put(), to be raised
