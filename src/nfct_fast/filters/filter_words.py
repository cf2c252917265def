"""Split a filter into words, marks and quoted texts, with the place of each."""

import re
from typing import NamedTuple

from nfct_fast.filters.filter_error import FilterError, quote

LENGTH_LIMIT = 65536  # characters: 4,000 addresses in a list
WORD, QUOTED, MARK, END = "word", "quoted", "mark", "end"
# No two alternatives begin alike: one pass, whatever the text is.
_TOKEN = re.compile(
    r"(?P<mark>&&|\|\||[!<>=]=|[(){},!=<>])"
    r"|(?P<quoted>\"[^\"]*\"|'[^']*')"
    r"|(?P<word>[^\s(){},!&|=<>\"']+)"
)
_BLANKS = re.compile(r"\s*")


class Word(NamedTuple):
    """A word, a mark such as "(" or "!=", a quoted text (without its quotes), or the end."""

    text: str
    kind: str
    source: str  # the whole filter
    column: int  # counted from 1

    def error(self, message: str) -> FilterError:
        """Return an error that points here."""
        return FilterError(message, self.source, self.column)

    def __str__(self) -> str:
        return "the end" if self.kind == END else quote(self.text)


def cut(text: str) -> list[Word]:
    """Return the words of a filter and, as the last, its end. Raises FilterError."""
    if len(text) > LENGTH_LIMIT:
        raise FilterError(f"it has {len(text)} characters; at most {LENGTH_LIMIT} are possible", text, LENGTH_LIMIT + 1)
    words = []
    at = _BLANKS.match(text).end()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise FilterError(_unreadable(text[at], at + 1), text, at + 1)
        found = match[match.lastgroup]
        words.append(Word(found[1:-1] if match.lastgroup == QUOTED else found, match.lastgroup, text, at + 1))
        at = _BLANKS.match(text, match.end()).end()
    return [*words, Word("", END, text, len(text) + 1)]


def _unreadable(character, column):
    if character in "\"'":
        return f"the quote at column {column} is never closed"
    return f"unexpected {character!r} at column {column} (and, or, not are also written &&, ||, !)"
