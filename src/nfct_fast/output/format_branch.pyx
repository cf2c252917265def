"""One format of several outputs: what they have in common is formatted once."""
cimport cython
from libc.stdint cimport uint32_t
from nfct_fast.events.flow cimport flow_count
from nfct_fast.records.record cimport RECORD_LOSS
from nfct_fast.text.text_buffer cimport buffer_free

cdef enum:
    BYTES = 1 << 18          # a piece ends early when it is as long: then it stays in the processor's cache


@cython.final
@cython.auto_pickle(False)
cdef class FormatBranch:
    """The outputs of one format, as a chain: without the GIL there are no lists."""

    def __cinit__(self, outputs, FormatBranch next=None):
        cdef BufferedOutput one
        for one in outputs:
            one.next, self.first = self.first, one
        self.formatter, self.next = self.first.formatter, next

    def __dealloc__(self):
        buffer_free(&self.out)

    cdef void _put(self, const record_t *record) noexcept nogil:
        cdef size_t before = self.out.length
        cdef uint32_t flows = 0 if record.kind == RECORD_LOSS else flow_count(&record.flow)
        self.formatter.put(&self.out, record)
        if self.out.failed:
            self.out.failed = False
            self.out.length = before
            self.flows += flows
        elif self.out.length > before:
            self.entries[self.count].size = <uint32_t>(self.out.length - before)
            self.entries[self.count].flows = flows
            self.count += 1

    cdef int format(self, TakenRecords batch, int begin, int end) noexcept nogil:
        cdef int at = begin
        self.out.length = self.count = self.flows = 0
        while at < end and self.out.length < BYTES:
            self._put(&batch.records[at])
            at += 1
        if self.next is not None:
            self.next._format_all(batch, begin, at)
        return at

    cdef void _format_all(self, TakenRecords batch, int begin, int end) noexcept nogil:
        cdef int at
        self.out.length = self.count = self.flows = 0
        for at in range(begin, end):
            self._put(&batch.records[at])
        if self.next is not None:
            self.next._format_all(batch, begin, end)

    cdef void format_one(self, const record_t *record) noexcept nogil:
        self.out.length = self.count = self.flows = 0
        self._put(record)
        if self.next is not None:
            self.next.format_one(record)

    cdef void hand_over(self) noexcept nogil:
        if self.count:
            self.first.add(self.out.data, self.entries, self.count)
        if self.flows:
            self.first.leave_out(self.flows)
        if self.next is not None:
            self.next.hand_over()

    cdef bint has_room(self) noexcept nogil:
        return self.first.has_room() and (self.next is None or self.next.has_room())
