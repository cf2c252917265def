"""Write a record as a message of syslog: RFC 5424 for the network, or the form of syslog(3) for the local daemon.

What reads /dev/log (journald, rsyslog, syslog-ng) expects the latter, and would take an RFC 5424 header for the text.
"""
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset, strlen
from libc.time cimport strftime, time_t, tm
from nfct_fast.output.entry_fields cimport ENTRY_FIELDS, entry_field_t, entry_fields, entry_value
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.records.labels cimport event_name
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport RECORD_LOSS, record_t
from nfct_fast.text.text_buffer cimport buffer_escaped, buffer_free, buffer_put, buffer_unsigned, text_buffer_t
from nfct_fast.text.timestamp cimport TimeFormat

import os

cdef extern from "<time.h>" nogil:
    tm *gmtime_r(const time_t *time, tm *result)

cdef const char *LOST = b"LOST"      # the message id of a report of a loss
# The form that RFC 5424 has for elements that IANA has not registered needs somebody's enterprise number: this one is
# reserved for examples (RFC 5612), and belongs to nobody.
cdef const char *ELEMENT = b" [nfct@32473"
_DAEMON = 3 << 3         # the facility
_WARNING, _INFO = 4, 6


def _printable(text, limit):
    """A header field: 1 to `limit` characters from ! to ~."""
    return "".join(letter for letter in text if "!" <= letter <= "~")[:limit] or "-"


@cython.final
@cython.auto_pickle(False)
cdef class SyslogMessage(Formatter):
    """A format for syslog, with the line of another format as text.

    Args:
        line: That format.
        presentation: A Presentation.
        local: The form of syslog(3) instead of RFC 5424.
        counted: Its size before each message, as a stream needs it (RFC 6587).
    """
    cdef Formatter line
    cdef Presentation presentation
    cdef entry_field_t fields[ENTRY_FIELDS]
    cdef int count
    cdef bint local
    cdef bint counted
    cdef list kept           # what the next three point to
    cdef span_t begin        # up to the time,
    cdef span_t loss_begin
    cdef span_t middle       # and from there to the message id or the text
    cdef TimeFormat time     # of the local form
    cdef text_buffer_t message
    cdef text_buffer_t value
    cdef text_buffer_t escaped

    def __cinit__(self, Formatter line not None, Presentation presentation not None, *, bint local=False,
                  bint counted=False):
        self.line, self.presentation, self.local, self.counted = line, presentation, local, counted
        self.count = entry_fields(self.fields)
        version = "" if local else "1 "
        if local:
            middle = f" nfct-fast[{os.getpid()}]: "
            self.time = TimeFormat("%b %e %H:%M:%S")
        else:
            middle = f" {_printable(presentation.identity.host.name, 255)} nfct-fast {os.getpid()} "
        self.kept = [text.encode("ascii") for text in (
            f"<{_DAEMON | _INFO}>{version}", f"<{_DAEMON | _WARNING}>{version}", middle)]
        self.begin.at, self.begin.size = <bytes>self.kept[0], len(self.kept[0])
        self.loss_begin.at, self.loss_begin.size = <bytes>self.kept[1], len(self.kept[1])
        self.middle.at, self.middle.size = <bytes>self.kept[2], len(self.kept[2])

    def __dealloc__(self):
        buffer_free(&self.message)
        buffer_free(&self.value)
        buffer_free(&self.escaped)

    cdef void _put_time(self, text_buffer_t *out, int64_t time) noexcept nogil:
        cdef time_t second = <time_t>(time // 1000000000)
        cdef int64_t rest = time % 1000000000 // 1000
        cdef char text[64]
        cdef tm parts
        cdef size_t size
        cdef int i
        memset(&parts, 0, sizeof(parts))
        gmtime_r(&second, &parts)
        size = strftime(text, sizeof(text) - 8, b"%Y-%m-%dT%H:%M:%S.", &parts)
        for i in range(5, -1, -1):
            text[size + i] = <char>(48 + rest % 10)
            rest //= 10
        text[size + 6] = c"Z"
        buffer_put(out, text, size + 7)

    cdef void _put_parameter(self, text_buffer_t *out, const char *name, int size) noexcept nogil:
        """Append self.value as a parameter of the structured data."""
        cdef size_t i
        self.escaped.length = 0
        buffer_escaped(&self.escaped, self.value.data, self.value.length, 0)
        buffer_put(out, b" ", 1)
        buffer_put(out, name, size)
        buffer_put(out, b'="', 2)
        for i in range(self.escaped.length):
            if self.escaped.data[i] == c'"' or self.escaped.data[i] == c"\\" or self.escaped.data[i] == c"]":
                buffer_put(out, b"\\", 1)
            buffer_put(out, self.escaped.data + i, 1)
        buffer_put(out, b'"', 1)

    cdef void _put_header(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef const char *type
        if record.kind == RECORD_LOSS:
            buffer_put(out, self.loss_begin.at, self.loss_begin.size)
        else:
            buffer_put(out, self.begin.at, self.begin.size)
        if self.local:
            self.time.put(out, record.loss.time if record.kind == RECORD_LOSS else record.flow.time)
            buffer_put(out, self.middle.at, self.middle.size)
            return
        self._put_time(out, record.loss.time if record.kind == RECORD_LOSS else record.flow.time)
        buffer_put(out, self.middle.at, self.middle.size)
        type = LOST if record.kind == RECORD_LOSS else event_name(record.flow.type)
        buffer_put(out, type, strlen(type))
        self._put_elements(out, record)
        buffer_put(out, b" ", 1)

    cdef void _put_elements(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef int i
        buffer_put(out, ELEMENT, strlen(ELEMENT))
        if record.kind == RECORD_LOSS:
            self.value.length = 0
            buffer_unsigned(&self.value, record.loss.events)
            self._put_parameter(out, b"lost", 4)
        else:
            for i in range(self.count):
                self.value.length = 0
                if entry_value(&self.value, record, self.fields[i].field, self.presentation):
                    self._put_parameter(out, self.fields[i].name, self.fields[i].size)
        buffer_put(out, b"]", 1)

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        if record.kind == RECORD_LOSS and record.loss.events == 0 and not record.loss.at_least:
            return
        self.message.length = 0
        self._put_header(&self.message, record)
        self.value.length = 0
        self.line.put(&self.value, record)
        if self.value.length == 0:
            buffer_unsigned(&self.value, record.loss.events)
            buffer_put(&self.value, b" events lost\n", 13)
        if self.value.length:
            buffer_put(&self.message, self.value.data, self.value.length - 1)       # without its newline
        if self.counted:
            buffer_unsigned(out, self.message.length)
            buffer_put(out, b" ", 1)
        buffer_put(out, self.message.data, self.message.length)
        out.failed = out.failed or self.message.failed or self.value.failed or self.escaped.failed
        self.message.failed = self.value.failed = self.escaped.failed = False
