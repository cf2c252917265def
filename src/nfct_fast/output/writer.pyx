"""Format and write batches without the GIL."""
cimport cython
from libc.errno cimport ENOMEM
from libc.string cimport memset
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put
from nfct_fast.records.record cimport RECORD_LOSS, record_t

import time


@cython.final
@cython.auto_pickle(False)
cdef class Writer(RecordWriter):
    """A writer of batches through a formatter to a sink: one line per record, one write per batch.

    put() blocks like Sink.put(), and returns what that does, or -ENOMEM; records whose lines were written in full are
    consumed.
    """

    def __cinit__(self, Formatter formatter not None, Sink sink not None):
        self.formatter = formatter
        self.sink = sink

    def __dealloc__(self):
        buffer_free(&self.out)
        buffer_free(&self.line)

    cdef int put(self, TakenRecords batch) noexcept nogil:
        cdef int i
        self.out.length = self.sent = self.consumed_length = 0
        for i in range(batch.consumed, batch.count):
            self.formatter.put(&self.out, &batch.records[i])
        if self.out.failed:
            self.out.failed = False
            self.out.length = 0
            return -ENOMEM
        return self.resume(batch)

    cdef bint is_pending(self) noexcept nogil:
        return self.sent < self.out.length

    cdef int resume(self, TakenRecords batch) noexcept nogil:
        cdef int result = self.sink.put(self.out.data + self.sent, self.out.length - self.sent)
        self.sent += self.sink.written
        if result == 0:
            batch.consume(batch.count)
        else:
            self._consume_written(batch)
        return result

    cdef void _consume_written(self, TakenRecords batch) noexcept nogil:
        # Format the lines again to find where each ends: this is rare, and noting it in put() would slow every flow
        # down.
        while batch.consumed < batch.count:
            self.line.length = 0
            self.formatter.put(&self.line, &batch.records[batch.consumed])
            if self.line.failed or self.consumed_length + self.line.length > self.sent:
                return
            self.consumed_length += self.line.length
            batch.consume(batch.consumed + 1)

    def write_loss(self, count, bint at_least=False) -> bool:
        """Write a last LOST record, if the format has such records. Waits up to 0.1 seconds.

        Args:
            count: The number of events lost.
            at_least: Whether the count is a lower bound.

        Returns:
            False if the sink did not take it.
        """
        cdef record_t record
        memset(&record, 0, sizeof(record))
        record.kind = RECORD_LOSS
        record.loss.time = time.time_ns()
        record.loss.events = count
        record.loss.at_least = at_least
        # End a line that was cut short, so that the record gets a line of its own.
        cdef bint cut = self.sent and self.out.data[self.sent - 1] != c"\n"
        cdef bint failed
        self.line.length = 0
        buffer_put(&self.line, b"\n", cut)
        self.formatter.put(&self.line, &record)
        failed = self.line.failed
        self.line.failed = False
        return self.line.length == <size_t>cut or not failed and self.sink.put_last(self.line.data, self.line.length)
