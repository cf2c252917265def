"""Format times by strftime(3), calling it only when the second has changed."""
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset
from libc.time cimport strftime, time_t, tm
from nfct_fast.text.text_buffer cimport buffer_put, text_buffer_t

import re

cdef extern from "<time.h>" nogil:
    tm *localtime_r(const time_t *time, tm *result)

cdef enum:
    MICROS_MAX = 8
    MICRO_MARK = 1

# The directives of glibc's strftime, without %n and %t, and Python's %f for microseconds.
_DIRECTIVE = re.compile(r"%(?:[_0^#-]*[0-9]*[EO]?[aAbBcCdDeFgGhHIjklmMpPrRsSTuUVwWxXyYzZ]|%|f)|(?P<bad>%.?)", re.S)


def _marked(match):
    return chr(MICRO_MARK) * 6 if match[0] == "%f" else match[0]


@cython.final
@cython.auto_pickle(False)
cdef class TimeFormat:
    """A strftime(3) format for local time, with %f for six digits of microseconds.

    Raises:
        ValueError: It is empty, has an unknown directive or a control character, or makes more than 1,000 bytes.
    """

    def __cinit__(self, str format not None):
        for match in _DIRECTIVE.finditer(format):
            if match["bad"]:
                raise ValueError(f"time format {format!r}: {match['bad']!r} is no directive that fits into a line")
        if any([ord(character) < 32 or ord(character) == 127 for character in format]):
            raise ValueError(f"time format {format!r} has a control character")
        marked = _DIRECTIVE.sub(_marked, format)
        try:
            self.format = marked.encode(errors="surrogateescape")
            self.format.decode()
        except UnicodeError:
            raise ValueError(f"time format {format!r} is not valid Unicode") from None
        if marked.count(chr(MICRO_MARK)) > 6 * MICROS_MAX:
            raise ValueError(f"time format {format!r} has more than {MICROS_MAX} %f")
        self.pattern = self.format
        self._render(1700000000)
        if self.length == 0:
            raise ValueError(f"time format {format!r} gives nothing, or more than {sizeof(self.text) - 1} bytes")

    cdef void _render(self, int64_t second) noexcept nogil:
        cdef time_t now = second
        cdef tm parts
        cdef int at = 0
        self.second = second
        self.micro_count = 0
        memset(&parts, 0, sizeof(parts))
        localtime_r(&now, &parts)      # fails only for years beyond an int
        self.length = <int>strftime(self.text, sizeof(self.text), self.pattern, &parts)
        while at < self.length:
            if self.text[at] == MICRO_MARK:
                self.micros[self.micro_count] = at
                self.micro_count += 1
                at += 6
            else:
                at += 1

    cdef void put(self, text_buffer_t *out, int64_t time) noexcept nogil:
        """Append a time, given in ns since the epoch."""
        cdef int64_t second = time // 1000000000
        cdef int micro
        cdef int i
        cdef int digit
        if second != self.second:
            self._render(second)
        for i in range(self.micro_count):
            micro = <int>(time % 1000000000 // 1000)
            for digit in range(5, -1, -1):
                self.text[self.micros[i] + digit] = <char>(48 + micro % 10)
                micro //= 10
        buffer_put(out, self.text, self.length)
