"""A batch on its way out: formatted and written without the GIL."""
cimport cython
from libc.errno cimport ENOMEM
from .outbuf cimport outbuf_free
from .sink cimport sink_error


@cython.final
@cython.auto_pickle(False)
cdef class Writer:
    """Writes batches, one line a record, through a formatter into a sink, a batch in one piece."""

    def __cinit__(self, Formatter formatter not None, Sink sink not None):
        self.formatter = formatter
        self.sink = sink

    def __dealloc__(self):
        outbuf_free(&self.out)

    cdef int put(self, Batch batch) noexcept nogil:
        """Write what is left of a batch; when it blocks, and what it returns, is as with Sink.put, or -ENOMEM."""
        cdef int i
        self.out.length = 0
        for i in range(batch.taken, batch.count):
            self.formatter.put(&self.out, &batch.records[i])
        if self.out.failed:
            self.out.failed = False
            return -ENOMEM
        return self.sink.put(self.out.data, self.out.length)


cdef object writer_error(int result):
    return MemoryError("output") if result == -ENOMEM else sink_error(result)
