"""A str.format() template over ts, ev, info and peer, compiled once and then filled in without the GIL.

Every field is text, so a format specification is what str.format() has for text: [[fill]align][width][.precision][s].
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset, strlen
from nfct_fast.output.fields cimport field_find, field_is_of_process, field_put
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.processes.process_texts cimport (
    PROCESS_TEXTS, process_text_find, process_text_keep, process_text_t, process_texts_free,
)
from nfct_fast.processes.process cimport PROCESS_IDS, process_t
from nfct_fast.text.text_buffer cimport buffer_object, buffer_put, text_buffer_t
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport RECORD_LOSS, flow_presentation, flow_record, record_t
from nfct_fast.text.timestamp cimport TimeFormat

import re
import string

from nfct_fast.output.fields import FIELDS

DEFAULT = ("{ts}: {ev.proto} {ev.src}/{ev.sport} > {ev.dst}/{ev.dport} :: {info.pid} {info.uid}:{info.gid} "
           "{info.service} :: {info.cmdline}")

_SPEC = re.compile(r"(?:(?P<fill>.)?(?P<align>[<>^]))?(?P<zero>0)?(?P<width>[0-9]{0,4})"
                   r"(?:\.(?P<precision>[0-9]{1,4}))?s?", re.S)

cdef enum:
    LITERAL = -1
    TIME = -2

# A literal or a field of a template.
cdef struct piece_t:
    int field            # LITERAL, TIME or a number from field_find()
    const char *literal  # the literal's text
    int size             # bytes in the literal
    char fill[4]         # the character to pad a field with, in UTF-8
    int fill_size        # bytes in `fill`
    char align           # "<", ">" or "^"
    int width            # pad to so many characters; 0: do not pad
    int precision        # cut to so many characters; -1: do not cut
    const char *colour   # what stands before a field on a terminal, and RESET after it; NULL: nothing


cdef const char *ELLIPSIS = b"\xe2\x80\xa6"
cdef const char *RESET = b"\x1b[m"


cdef bint _is_continuation(char byte) noexcept nogil:
    return (byte & 0xc0) == 0x80


cdef void _justify(text_buffer_t *out, size_t begin, const piece_t *piece, bint ellipsis) noexcept nogil:
    cdef size_t at = begin
    cdef size_t last = begin     # where the last character begins
    cdef size_t padding
    cdef size_t before
    cdef size_t i, _
    cdef int characters = 0
    if out.failed:
        return
    while at < out.length:
        if not _is_continuation(out.data[at]):
            if characters == piece.precision:
                out.length = last if ellipsis else at
                if ellipsis:
                    buffer_put(out, ELLIPSIS, strlen(ELLIPSIS))
                break
            characters += 1
            last = at
        at += 1
    if characters >= piece.width:
        return
    padding = piece.width - characters
    before = padding if piece.align == b">" else padding // 2 if piece.align == b"^" else 0
    for _ in range(padding):
        buffer_put(out, piece.fill, piece.fill_size)
    if out.failed or before == 0:
        return
    at = out.length - padding * piece.fill_size - begin
    memmove(out.data + begin + before * piece.fill_size, out.data + begin, at)
    for i in range(before):
        memcpy(out.data + begin + i * piece.fill_size, piece.fill, piece.fill_size)


@cython.final
@cython.auto_pickle(False)
cdef class Template(Formatter):
    """A format with a line of text for each flow.

    Args:
        template: A str.format() template with the fields in FIELDS and `ts`.
        time_format: A strftime(3) format; see TimeFormat.
        presentation: a Presentation.
        ellipsis: Whether what a precision cuts ends in one.
        colours: SGR parameters of ECMA-48 for fields, such as {"info.pid": "1"}.

    Raises ValueError with the reason if either is invalid.
    """
    cdef list literals
    cdef dict colours        # by field
    cdef bint ellipsis
    cdef piece_t *pieces
    cdef int count
    cdef int same_begin      # pieces that say the same of all flows of one process
    cdef int same_end
    cdef process_text_t texts[PROCESS_TEXTS]
    cdef TimeFormat time
    cdef Presentation presentation

    def __cinit__(self, str template not None=DEFAULT, str time_format not None="%s", Presentation presentation=None, *,
                  bint ellipsis=False, colours=None):
        self.presentation = presentation if presentation is not None else Presentation()
        self.ellipsis = ellipsis
        self.colours = {name: f"\x1b[{code}m".encode("ascii") for name, code in (colours or {}).items()}
        try:
            # Under a C locale, command line arguments hold non-ASCII bytes as surrogates.
            parsed = list(string.Formatter().parse(template.encode(errors="surrogateescape").decode()))
            self.literals = [text.encode() for text, *_ in parsed]
        except UnicodeError:
            raise ValueError(f"format {template!r} is not valid Unicode") from None
        except ValueError as error:
            raise ValueError(f"format {template!r} is not a template: {error}") from None
        self.time = TimeFormat(time_format)
        self.pieces = <piece_t *>calloc(2 * len(parsed) + 1, sizeof(piece_t))
        if self.pieces == NULL:
            raise MemoryError("template")
        for literal, (_, name, spec, conversion) in zip(self.literals, parsed):
            if literal:
                self._literal(literal)
            if name is not None:
                self._field(name, spec, conversion)
        self._literal(b"\n")
        self._find_same()

    def __dealloc__(self):
        free(self.pieces)
        process_texts_free(self.texts)

    def line(self, flow not None) -> str:
        """Return the line of a `Flow`, with its "\\n", as told by the host that the flow came from."""
        cdef text_buffer_t out
        cdef const record_t *record = flow_record(flow)
        self.presentation = flow_presentation(flow)
        memset(&out, 0, sizeof(out))
        self.put(&out, record)
        return buffer_object(&out)

    cdef void _find_same(self) noexcept nogil:
        """Find the longest run of pieces that depend on the owner's process alone."""
        cdef int begin = 0
        cdef int i
        for i in range(self.count):
            if self.pieces[i].field != LITERAL and not field_is_of_process(self.pieces[i].field):
                begin = i + 1
            elif i + 1 - begin > self.same_end - self.same_begin:
                self.same_begin, self.same_end = begin, i + 1

    cdef _literal(self, bytes literal):
        self.pieces[self.count].field = LITERAL
        self.pieces[self.count].literal = literal       # kept alive by self.literals, or a constant
        self.pieces[self.count].size = <int>len(literal)
        self.count += 1

    cdef _field(self, str name, str spec, str conversion):
        cdef piece_t *piece = &self.pieces[self.count]
        cdef bytes fill
        cdef bytes colour = self.colours.get(name)
        piece.field = TIME if name == "ts" else field_find(name)
        if piece.field == -1:
            raise ValueError(f"format: unknown field {{{name}}}; the fields are ts, {', '.join(FIELDS)}")
        match = _SPEC.fullmatch(spec)
        if match is None or conversion not in (None, "s"):
            what = f"!{conversion}" if conversion not in (None, "s") else f":{spec}"
            raise ValueError(f"format: {{{name}{what}}} is not for text; use [[fill]<>^][width][.precision], "
                             f"as in {{{name}:>8}}")
        # As in str.format(), a zero before the width is the fill unless one was given.
        fill = (match["fill"] or match["zero"] or " ").encode()
        memcpy(piece.fill, <const char *>fill, len(fill))
        piece.fill_size = <int>len(fill)
        if colour is not None:
            piece.colour = colour                   # kept alive by self.colours
        piece.align = ord(match["align"] or "<")
        piece.width = int(match["width"] or 0)
        piece.precision = -1 if match["precision"] is None else int(match["precision"])
        self.count += 1

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        if record.kind == RECORD_LOSS:      # the command line reports losses on standard error
            return
        self._put_pieces(out, record, 0, self.same_begin)
        if not self._put_same(out, record):
            self._put_pieces(out, record, self.same_begin, self.same_end)
        self._put_pieces(out, record, self.same_end, self.count)

    cdef bint _put_same(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        """Append the pieces that _find_same() found; False if they cannot be kept for the process."""
        cdef process_t *process = record.owner.process
        cdef process_text_t *slot
        if process == NULL or not process.has & PROCESS_IDS:
            return False
        slot = process_text_find(self.texts, process)
        if slot.process == NULL:
            self._put_pieces(&slot.text, record, self.same_begin, self.same_end)
            if not process_text_keep(slot, process):
                return False
        buffer_put(out, slot.text.data, slot.text.length)
        return True

    cdef void _put_pieces(self, text_buffer_t *out, const record_t *record, int at, int end) noexcept nogil:
        cdef piece_t *piece
        cdef size_t begin
        for at in range(at, end):
            piece = &self.pieces[at]
            begin = out.length
            if piece.field == LITERAL:
                buffer_put(out, piece.literal, piece.size)
                continue
            if piece.colour != NULL:
                buffer_put(out, piece.colour, strlen(piece.colour))
                begin = out.length
            if piece.field == TIME:
                self.time.put(out, record.flow.time)
            else:
                field_put(out, record, piece.field, self.presentation)
            if piece.width or piece.precision >= 0:
                _justify(out, begin, piece, self.ellipsis)
            if piece.colour != NULL:
                buffer_put(out, RESET, strlen(RESET))
