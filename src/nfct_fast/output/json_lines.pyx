"""Write a record as one line of JSON (RFC 8259). README.md has the schema."""
cimport cython
from libc.stdint cimport int64_t
from nfct_fast.events.flow cimport flow_t
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.processes.process_texts cimport PROCESS_TEXTS, process_text_t, process_texts_free
from nfct_fast.records.flow_json cimport flow_json, json_clock_t, stamp_json
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport RECORD_LOSS, loss_t, record_t
from nfct_fast.text.json_text cimport json_number, json_raw
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put, text_buffer_t


@cython.final
@cython.auto_pickle(False)
cdef class JsonLines(Formatter):
    """A format with one JSON object per line for each flow, and one of type LOST where events are missing.

    presentation: a Presentation.
    """
    cdef json_clock_t clock
    cdef text_buffer_t stamp     # of `stamped`: events that were received together have one time
    cdef int64_t stamped
    cdef process_text_t texts[PROCESS_TEXTS]
    cdef Presentation presentation

    def __cinit__(self, Presentation presentation=None):
        self.presentation = presentation if presentation is not None else Presentation()

    def __dealloc__(self):
        buffer_free(&self.stamp)
        process_texts_free(self.texts)

    cdef void _put_loss(self, text_buffer_t *out, const loss_t *loss) noexcept nogil:
        if loss.events == 0 and not loss.at_least:      # all of them were recovered
            return
        json_raw(out, b'{"type":"LOST"')
        stamp_json(out, &self.clock, loss.time, self.presentation)
        json_number(out, b',"lost":', loss.events)
        json_raw(out, b',"at_least":true}\n' if loss.at_least else b"}\n")

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef const flow_t *flow = &record.flow
        if record.kind == RECORD_LOSS:
            self._put_loss(out, &record.loss)
            return
        if flow.time != self.stamped or self.stamp.length == 0 or self.stamp.failed:
            self.stamp.failed = False
            self.stamp.length = 0
            stamp_json(&self.stamp, &self.clock, flow.time, self.presentation)
            self.stamped = flow.time
        flow_json(out, flow, record.began, record.direction, record.first_seen, &record.owner, &record.peer,
                  &self.stamp, self.texts, self.presentation)
        buffer_put(out, b"\n", 1)
