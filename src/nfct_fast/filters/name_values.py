"""The values of a filter's keys that are names: patterns with "*" for any text and "?" for any one byte.

They are matched against what other processes choose. So a pattern is cut at its "*" into pieces, each of which is
looked for once, from left to right: no choice is ever taken back.
"""

import re

from nfct_fast.filters.expression import Condition, Expression
from nfct_fast.filters.filter_words import Word

PATTERN_LIMIT = 255  # bytes
_COMM = 15  # bytes of a name, TASK_COMM_LEN less the NUL
_UNITS = r"service|socket|device|mount|automount|swap|target|path|timer|slice|scope"
_UNIT = re.compile(rf".*\.({_UNITS})", re.DOTALL)
_SHORT_ID = re.compile(r"[0-9a-f]{12,63}")
_PARTS = re.compile(rb"\\[*?\\]|[*?]|[^*?\\]+|\\")


def pattern(word: Word, text: str) -> tuple[bytes, ...]:
    """Return the pieces between the "*" of a pattern, with NUL for each "?".

    A backslash before "*", "?" or another one takes their meaning away; elsewhere it is an ordinary character, as
    systemd has it in names of units. Raises FilterError.
    """
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise word.error(f"{word} at column {word.column} has a character that no name can have") from None
    if b"\0" in encoded:
        raise word.error(f"{word} at column {word.column} has a NUL, which no name can have")
    if len(encoded) > PATTERN_LIMIT:
        raise word.error(
            f"{word} at column {word.column} has {len(encoded)} bytes; at most {PATTERN_LIMIT} are possible"
        )
    pieces = [b""]
    for part in _PARTS.findall(encoded):
        if part == b"*":
            pieces.append(b"")
        elif part == b"?":
            pieces[-1] += b"\0"
        else:
            pieces[-1] += part[1:] if len(part) == 2 and part[:1] == b"\\" else part
    return tuple([pieces[0], *filter(None, pieces[1:-1]), pieces[-1]] if len(pieces) > 1 else pieces)


def _plain(text):
    return not re.search(r"[*?]", text)


def _comm(word):
    pieces = pattern(word, word.text)
    if sum(map(len, pieces)) > _COMM:
        raise word.error(
            f"{word} at column {word.column} is longer than the {_COMM} bytes that a comm has; "
            f"write {word.text[:_COMM]!r}, or use exe"
        )
    return pieces


def _exe(word):
    # Without a directory: the file's name.
    return pattern(word, word.text if "/" in word.text or word.text.startswith("*") else f"*/{word.text}")


def _unit(word):
    # As systemctl(1) and journalctl(1) complete it.
    return pattern(word, word.text if not _plain(word.text) or _UNIT.fullmatch(word.text) else f"{word.text}.service")


def _container(word):
    # As docker(1) takes the beginning of an id.
    return pattern(word, f"{word.text}*" if _SHORT_ID.fullmatch(word.text) else word.text)


def _cmdline(word):
    return pattern(word, word.text)


_READERS = {"comm": _comm, "exe": _exe, "unit": _unit, "container": _container, "cmdline": _cmdline}


def names(field: str):
    """Return a reader of lists of patterns: (operator, words, ends) -> Expression."""

    def read(operator: str, words: list[Word], ends: int) -> Expression:
        return Condition(field, patterns=tuple([_READERS[field](word) for word in words]), ends=ends)

    return read
