"""A batch on its way out: formatted and written without the GIL."""
cimport cython
from .batch cimport Batch
from .formatter cimport Formatter
from .outbuf cimport outbuf_free, outbuf_t
from .sink cimport Sink, sink_error


@cython.final
@cython.auto_pickle(False)
cdef class Writer:
    """Writes batches, one line a record, through a formatter into a sink, a batch in one piece."""
    cdef Formatter formatter
    cdef Sink sink
    cdef outbuf_t out

    def __cinit__(self, Formatter formatter not None, Sink sink not None):
        self.formatter = formatter
        self.sink = sink

    def __dealloc__(self):
        outbuf_free(&self.out)

    cdef int _write(self, Batch batch) noexcept nogil:
        cdef int i
        self.out.length = 0
        for i in range(batch.taken, batch.count):
            self.formatter.put(&self.out, &batch.records[i])
        return self.sink.put(self.out.data, self.out.length)

    def write(self, Batch batch not None) -> None:
        """Write what is left of a batch; see Sink.write for when it blocks and what it raises."""
        cdef int result
        with nogil:
            result = self._write(batch)
        if self.out.failed:
            self.out.failed = False
            raise MemoryError("output")
        if result < 0:
            raise sink_error(result)
