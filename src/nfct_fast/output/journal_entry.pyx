"""Write a record as an entry for the systemd journal, by its native protocol.

See https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: a datagram of fields, each `NAME`, a newline, the size of the value in
64 little-endian bits, the value and a newline. The simpler form `NAME=value` is used only where no other process has a
say in the value: names of processes may contain newlines.
"""
cimport cython
from libc.stdint cimport uint64_t
from nfct_fast.output.entry_fields cimport ENTRY_FIELDS, entry_field_t, entry_fields, entry_value
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport RECORD_LOSS, record_t
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put, buffer_unsigned, text_buffer_t

# Made at random for this program: `journalctl MESSAGE_ID=...` finds its flows, and nothing else.
FLOW_ID = "ad821dfb78d94ff6a18ceddef3cebdb9"
LOSS_ID = "da750c764f404aa7a1623f5242f1f2b8"


@cython.final
@cython.auto_pickle(False)
cdef class JournalEntry(Formatter):
    """A format for journald: the line of another format as MESSAGE, and the fields of NAMES in capitals after NFCT_.

    A field that is not known is left out. There is no OBJECT_PID: journald would look that pid up itself, later, when
    it may be another process's.
    """
    cdef Formatter line
    cdef Presentation presentation
    cdef entry_field_t fields[ENTRY_FIELDS]
    cdef list names
    cdef int count
    cdef list kept           # what the next two point to
    cdef span_t head
    cdef span_t loss_head
    cdef text_buffer_t value

    def __cinit__(self, Formatter line not None, Presentation presentation not None):
        cdef int i
        cdef bytes name
        self.line, self.presentation = line, presentation
        self.count = entry_fields(self.fields)
        self.names = [b"NFCT_" + self.fields[i].name[:self.fields[i].size].upper() + b"\n" for i in range(self.count)]
        for i in range(self.count):
            name = self.names[i]
            self.fields[i].name, self.fields[i].size = name, <int>len(name)
        common = "SYSLOG_IDENTIFIER=nfct-fast\nSYSLOG_FACILITY=3\n"
        self.kept = [
            f"PRIORITY=6\n{common}MESSAGE_ID={FLOW_ID}\nMESSAGE\n".encode("ascii"),
            f"PRIORITY=4\n{common}MESSAGE_ID={LOSS_ID}\nNFCT_TYPE=LOST\nMESSAGE\n".encode("ascii"),
        ]
        self.head.at, self.head.size = <bytes>self.kept[0], len(self.kept[0])
        self.loss_head.at, self.loss_head.size = <bytes>self.kept[1], len(self.kept[1])

    def __dealloc__(self):
        buffer_free(&self.value)

    cdef void _put_value(self, text_buffer_t *out, const char *data, size_t size) noexcept nogil:
        cdef char bytes[8]
        cdef int i
        for i in range(8):
            bytes[i] = <char>((<uint64_t>size >> 8 * i) & 0xff)
        buffer_put(out, bytes, 8)
        buffer_put(out, data, size)
        buffer_put(out, b"\n", 1)

    cdef void _put_loss(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        if record.loss.events == 0 and not record.loss.at_least:      # all of them were recovered
            return
        self.value.length = 0
        buffer_unsigned(&self.value, record.loss.events)
        buffer_put(&self.value, b" or more", 8 if record.loss.at_least else 0)
        buffer_put(&self.value, b" events lost", 12)
        buffer_put(out, self.loss_head.at, self.loss_head.size)
        self._put_value(out, self.value.data, self.value.length)
        buffer_put(out, b"NFCT_LOST=", 10)
        buffer_unsigned(out, record.loss.events)
        buffer_put(out, b"\n", 1)

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        cdef int i
        if record.kind == RECORD_LOSS:
            self._put_loss(out, record)
            return
        self.value.length = 0
        self.line.put(&self.value, record)
        buffer_put(out, self.head.at, self.head.size)
        self._put_value(out, self.value.data, self.value.length - (self.value.length > 0))    # without its newline
        for i in range(self.count):
            self.value.length = 0
            if entry_value(&self.value, record, self.fields[i].field, self.presentation):
                buffer_put(out, self.fields[i].name, self.fields[i].size)
                self._put_value(out, self.value.data, self.value.length)
        out.failed = out.failed or self.value.failed
        self.value.failed = False
