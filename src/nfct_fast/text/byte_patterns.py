"""Compiles regular expressions for pattern.h: Python's syntax, without what cannot be searched for in linear time."""

import re
import struct
from re import _constants as codes
from re import _parser as parser
from typing import NamedTuple

SECRET = "secret"  # name of the group that is meant where it is not the whole match
_BYTES, _SPLIT, _JUMP, _SAVE, _BEGIN, _END, _EDGE, _NO_EDGE, _MATCH = range(9)  # as in pattern.h
_STEPS_MAX = 2000
_WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_ALL = frozenset(range(256))
_CATEGORIES = {
    codes.CATEGORY_DIGIT: frozenset(b"0123456789"),
    codes.CATEGORY_SPACE: frozenset(b" \t\n\r\f\v"),
    codes.CATEGORY_WORD: _WORD,
    codes.CATEGORY_NOT_DIGIT: _ALL - frozenset(b"0123456789"),
    codes.CATEGORY_NOT_SPACE: _ALL - frozenset(b" \t\n\r\f\v\0"),
    codes.CATEGORY_NOT_WORD: _ALL - _WORD,
}
_PLACES = {
    codes.AT_BEGINNING: _BEGIN,
    codes.AT_BEGINNING_STRING: _BEGIN,
    codes.AT_END: _END,
    codes.AT_END_STRING: _END,
    codes.AT_BOUNDARY: _EDGE,
    codes.AT_NON_BOUNDARY: _NO_EDGE,
}


class Program(NamedTuple):
    """What pattern.h needs of an expression."""

    steps: bytes  # of three uint16_t each
    sets: bytes  # of 32 bytes each
    begins: bytes  # for each byte, a set: which bytes can follow it at the beginning of a match
    is_anchored: bool
    has_secret: bool


def compile_pattern(pattern: str) -> Program:
    """Compile an expression.

    It matches bytes. A space in it, and \\s, also stand for the NUL between two arguments; "." stands for any byte, "^"
    and "$" for the two ends; to match nothing is no match. Of a match only the group (?P<secret>...) is meant, if there
    is one.

    Raises ValueError if it is not a regular expression, is not ASCII, has a backreference, a lookaround, an atomic
    group or a possessive quantifier, or is too large.
    """
    try:
        parsed = parser.parse(pattern.encode("ascii"))
    except UnicodeEncodeError:
        raise ValueError(f"redact {pattern!r}: only ASCII can be searched for") from None
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"redact {pattern!r} is not a valid regular expression: {error}") from None
    try:
        return _Compiler(parsed.state.groupdict.get(SECRET)).program(parsed)
    except (_Unsupported, RecursionError) as error:
        raise ValueError(f"redact {pattern!r}: {error}") from None


class _Unsupported(Exception):
    pass


class _Compiler:
    def __init__(self, secret):
        self.secret = secret
        self.steps = []
        self.sets = {}

    def program(self, parsed):
        if parsed.state.flags & re.MULTILINE:
            raise _Unsupported("(?m) is not supported: a command line is one line")
        self.sequence(parsed, parsed.state.flags)
        self.put(_MATCH)
        return Program(
            b"".join(struct.pack("=3H", *step) for step in self.steps),
            b"".join(self.sets) or bytes(32),
            self.begins(),
            not self.closure(0, set(_PLACES.values()) - {_BEGIN}),
            self.secret is not None,
        )

    def put(self, what, first=0, second=0):
        if len(self.steps) == _STEPS_MAX:
            raise _Unsupported(f"it is too large: with its repetitions written out it has more than {_STEPS_MAX} steps")
        self.steps.append((what, first, second))
        return len(self.steps) - 1

    def put_set(self, found):
        self.put(_BYTES, self.sets.setdefault(_packed(found), len(self.sets)))

    def sequence(self, parsed, flags):
        for code, value in parsed:
            self.one(code, value, flags)

    def one(self, code, value, flags):
        if code is codes.LITERAL:
            self.put_set(_bytes([(code, value)], flags))
        elif code is codes.NOT_LITERAL:
            self.put_set(_ALL - _bytes([(codes.LITERAL, value)], flags))
        elif code is codes.ANY:
            self.put_set(_ALL)
        elif code is codes.IN:
            self.put_set(_bytes(value, flags))
        elif code is codes.AT:
            self.put(_PLACES[value])
        elif code is codes.BRANCH:
            self.branches(value[1], flags)
        elif code is codes.SUBPATTERN:
            group, more, less, inner = value
            if more & re.MULTILINE:
                raise _Unsupported("(?m) is not supported: a command line is one line")
            if group is not None and group == self.secret:
                self.put(_SAVE, 0)
                self.sequence(inner, flags & ~less | more)
                self.put(_SAVE, 1)
            else:
                self.sequence(inner, flags & ~less | more)
        elif code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            self.repetition(*value, code is codes.MAX_REPEAT, flags)
        else:
            raise _Unsupported(f"{str(code).lower()} is not supported: it cannot be searched for in linear time")

    def split(self, greedy, inner, after):
        return (_SPLIT, inner, after) if greedy else (_SPLIT, after, inner)

    def branches(self, ways, flags):
        ends = []
        for i, way in enumerate(ways):
            last = i == len(ways) - 1
            fork = None if last else self.put(_SPLIT)
            self.sequence(way, flags)
            if not last:
                ends.append(self.put(_JUMP))
                self.steps[fork] = (_SPLIT, fork + 1, len(self.steps))
        for end in ends:
            self.steps[end] = (_JUMP, len(self.steps), 0)

    def repetition(self, least, most, inner, greedy, flags):
        for _ in range(least):
            self.sequence(inner, flags)
        if most is codes.MAXREPEAT:
            fork = self.put(_SPLIT)
            self.sequence(inner, flags)
            self.put(_JUMP, fork)
            self.steps[fork] = self.split(greedy, fork + 1, len(self.steps))
            return
        forks = []
        for _ in range(most - least):
            forks.append(self.put(_SPLIT))
            self.sequence(inner, flags)
        for fork in forks:
            self.steps[fork] = self.split(greedy, fork + 1, len(self.steps))

    def closure(self, at, passable):
        """The steps that wait for a byte, or match, which are reached from one if these conditions hold."""
        found, todo, seen = set(), [at], set()
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            what, first, second = self.steps[at]
            if what in (_BYTES, _MATCH):
                found.add(at)
            elif what == _SPLIT:
                todo += [first, second]
            elif what == _JUMP:
                todo.append(first)
            elif what == _SAVE or what in passable:
                todo.append(at + 1)
        return found

    def begins(self):
        sets = [int.from_bytes(packed, "little") for packed in self.sets]
        rows = [0] * 256
        for at in self.closure(0, _PLACES.values()):
            what, first, _ = self.steps[at]
            if what == _MATCH:
                continue
            after = 0
            for next in self.closure(at + 1, _PLACES.values()):
                after |= sets[self.steps[next][1]] if self.steps[next][0] == _BYTES else (1 << 256) - 1
            for byte in range(256):
                if sets[first] >> byte & 1:
                    rows[byte] |= after
        return b"".join(row.to_bytes(32, "little") for row in rows)


def _bytes(items, flags):
    negated, found = False, set()
    for code, value in items:
        if code is codes.NEGATE:
            negated = True
        elif code is codes.LITERAL:
            found.add(value)
        elif code is codes.RANGE:
            found.update(range(value[0], value[1] + 1))
        else:
            found |= _CATEGORIES[value]
    if flags & re.IGNORECASE:
        found |= {byte ^ 0x20 for byte in found if 0x41 <= byte & 0xDF <= 0x5A}
    if 0x20 in found:
        found.add(0)
    return _ALL - found if negated else frozenset(found)


def _packed(found):
    packed = bytearray(32)
    for byte in found:
        packed[byte >> 3] |= 1 << (byte & 7)
    return bytes(packed)
