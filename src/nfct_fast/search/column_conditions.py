"""What a filter says of the columns of a store, as SQL: true of every row of which the filter may be true.

The filter itself decides on replay, so what the columns do not tell is taken for true here. "not" is never asked of
them: its conditions would have to be exact, and no index helps with them.
"""

from dataclasses import replace
from typing import NamedTuple

from nfct_fast.filters.expression import EITHER, IPV6, OWNER, PEER, AllOf, Condition, Expression, widened
from nfct_fast.text.protocol import protocol_name

_PARTS_MOST = 50  # of one "and" or "or"
_RANGES_MOST = 64  # of one condition: each is looked up in the index by itself
_VALUES_MOST = 10_000  # bound to a statement, which has room for 32,766
_AF = {0: 2, 1: 10}  # AF_INET, AF_INET6, by "pair" above 255
_ENDS = {OWNER: ("owner",), PEER: ("peer",), EITHER: ("owner", "peer")}
# The columns of a reply's field: those after NAT, or if there was none, the original ones the other way round.
_TUPLES = {
    "sport": ("sport",), "dport": ("dport",), "src": ("src",), "dst": ("dst",),
    "reply_sport": ("nat_dport", "dport"), "reply_dport": ("nat_sport", "sport"),
    "reply_src": ("nat_dst", "dst"), "reply_dst": ("nat_src", "src"),
}  # fmt: skip
_INDEXED = ("sport", "dport", "src", "dst", "nat_src", "nat_dst", "owner", "peer", "seen")

Values = list[int | bytes | str]


class Lookup(NamedTuple):
    """A condition that one index answers alone."""

    index: str
    sql: str
    values: Values


class Columns(NamedTuple):
    """A condition on the table `flow`; without `sql` it is true of every row.

    lookups: Any of them is true wherever the condition is; None if an index is missing for it.
    """

    sql: str = ""
    values: Values = []
    lookups: tuple[Lookup, ...] | None = None


EVERY = Columns()


def candidates(expression: Expression) -> list[Columns]:
    """Return conditions that are true of every row of which the expression may be true."""
    parts = expression.parts if isinstance(expression, AllOf) else (expression,)
    found = [part for part in map(_expression, parts[:_PARTS_MOST]) if part != EVERY]
    return found if sum(len(part.values) for part in found) <= _VALUES_MOST else []


def _expression(expression) -> Columns:
    if isinstance(expression, Condition):
        return EVERY if expression.negated else _condition(expression)
    parts = [_expression(part) for part in expression.parts[: _PARTS_MOST + 1]]
    if isinstance(expression, AllOf):
        return _all([part for part in parts if part != EVERY][:_PARTS_MOST])
    return EVERY if EVERY in parts or not parts or len(parts) > _PARTS_MOST else _any(parts)


def _joined(word, parts):
    if len(parts) == 1:
        return parts[0].sql, parts[0].values
    return f"({word.join([part.sql for part in parts])})", [value for part in parts for value in part.values]


def _all(parts) -> Columns:
    if not parts:
        return EVERY
    # One of them is enough to look up; that with the fewest values should have the fewest rows.
    lookups = min([part.lookups for part in parts if part.lookups is not None], key=len, default=None)
    return Columns(*_joined(" AND ", parts), lookups)


def _any(parts) -> Columns:
    known = all(part.lookups is not None for part in parts)
    return Columns(*_joined(" OR ", parts), tuple([one for part in parts for one in part.lookups]) if known else None)


def _of_column(column, sql, values) -> Columns:
    lookups = (Lookup(f"flow_{column}", sql, values),) if column in _INDEXED else None
    return Columns(sql, values, lookups)


def _condition(condition) -> Columns:
    field = condition.field
    if field == "pair":
        return _protocols(condition.ranges)
    if field == "pid":
        return _of_processes(condition.ends, _within("pid", condition))
    if field == "first_seen":
        return _of_column("seen", "seen > 0", [])
    if field in ("comm", "exe", "cmdline", "unit", "container"):
        return _names(field, condition)
    if field[-1] in "46" and field[:-1] in _TUPLES:
        return _any([_within(column, condition, int(field[-1])) for column in _TUPLES[field[:-1]]])
    if field in _TUPLES:
        return _any([_within(column, condition) for column in _TUPLES[field]])
    return EVERY


def _within(column, condition, version=0) -> Columns:
    """The column is in one of the ranges: of numbers, or of addresses of a version."""

    def value(number):
        return number.to_bytes(4 if version == 4 else 16, "big") if version else number

    single = [low for low, high in condition.ranges if low == high]
    wide = replace(condition, ranges=tuple([pair for pair in condition.ranges if pair[0] != pair[1]]))
    parts = []
    if single:
        marks = ", ".join("?" * len(single))
        parts.append(_of_column(column, f"{column} IN ({marks})", [value(number) for number in single]))
    for low, high in widened(wide, _RANGES_MOST).ranges:
        parts.append(_of_column(column, f"({column} >= ? AND {column} <= ?)", [value(low), value(high)]))
    return _any(parts)


def _protocols(ranges) -> Columns:
    pairs = [pair for low, high in ranges for pair in range(low, high + 1)]
    if len(pairs) > _RANGES_MOST:
        families = {pair // IPV6 for pair in pairs}
        return EVERY if len(families) > 1 else Columns(f"length(src) = {16 if 1 in families else 4}")
    names = [protocol_name(_AF[pair // IPV6], pair % IPV6) for pair in pairs]
    return Columns(f"proto IN ({', '.join('?' * len(names))})", names)


def _names(field, condition) -> Columns:
    """A name holds the longest piece of one of the patterns that every encoding leaves as it is."""
    pieces = [max(_plain(pattern), key=len, default="") for pattern in condition.patterns]
    if "" in pieces or len(pieces) > _PARTS_MOST:
        return EVERY
    return _of_processes(condition.ends, _any([Columns(f"instr({field}, ?) > 0", [piece]) for piece in pieces]))


def _plain(pattern):
    """The runs of printable ASCII in a pattern; the table has blanks where a command line has its NULs."""
    for piece in pattern:
        run = ""
        for byte in piece:
            if 0x21 <= byte <= 0x7E:
                run += chr(byte)
            else:
                yield run
                run = ""
        yield run


def _of_processes(ends, of_process) -> Columns:
    """Where only the cgroup of a socket is known, the columns name a process that has nothing else."""
    sql, values = of_process.sql, of_process.values
    return _any([_of_column(end, f"{end} IN (SELECT id FROM process WHERE {sql})", values) for end in _ENDS[ends]])
