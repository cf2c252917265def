"""What a filter says of the columns of rows, as SQL: true of every row of which the filter may be true.

The filter itself decides on replay, so what the columns do not tell is taken for true here. "not" is never asked of
them: its conditions would have to be exact, and no index helps with them. Which columns there are, and how a value is
bound, a dialect knows: file_conditions.py for SQLite, table_conditions.py for ClickHouse.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from nfct_fast.filters.expression import IPV6, AllOf, Condition, Expression, widened
from nfct_fast.text.protocol import protocol_name

PARTS_MOST = 50  # of one "and" or "or"
RANGES_MOST = 64  # of one condition: each is looked up in the index by itself
_VALUES_MOST = 10_000  # bound to a statement, where SQLite has room for 32,766
_AF = {0: 2, 1: 10}  # AF_INET, AF_INET6, by "pair" above 255
# The columns of a reply's field: those after NAT, or if there was none, the original ones the other way round.
TUPLES = {
    "sport": ("sport",), "dport": ("dport",), "src": ("src",), "dst": ("dst",),
    "reply_sport": ("nat_dport", "dport"), "reply_dport": ("nat_sport", "sport"),
    "reply_src": ("nat_dst", "dst"), "reply_dst": ("nat_src", "src"),
}  # fmt: skip

Values = list[Any]


class Lookup(NamedTuple):
    """A condition that one index answers alone."""

    index: str
    sql: str
    values: Values


class Columns(NamedTuple):
    """A condition on rows, with a "?" for each of the values; without `sql` it is true of every row.

    lookups: Any of them is true wherever the condition is; None if an index is missing for it.
    """

    sql: str = ""
    values: Values = []
    lookups: tuple[Lookup, ...] | None = None


EVERY = Columns()


def candidates(expression: Expression, of_condition: Callable[[Condition], Columns]) -> list[Columns]:
    """Return conditions that are true of every row of which the expression may be true.

    of_condition: Returns what is true of every row of which one condition, which is not negated, may be true.
    """
    parts = expression.parts if isinstance(expression, AllOf) else (expression,)
    found = [part for part in (_expression(one, of_condition) for one in parts[:PARTS_MOST]) if part != EVERY]
    return found if sum(len(part.values) for part in found) <= _VALUES_MOST else []


def _expression(expression, of_condition) -> Columns:
    if isinstance(expression, Condition):
        return EVERY if expression.negated else of_condition(expression)
    parts = [_expression(part, of_condition) for part in expression.parts[: PARTS_MOST + 1]]
    if isinstance(expression, AllOf):
        return _all([part for part in parts if part != EVERY][:PARTS_MOST])
    return EVERY if EVERY in parts or not parts or len(parts) > PARTS_MOST else any_columns(parts)


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


def any_columns(parts: list[Columns]) -> Columns:
    """Return the condition that one of these is true, of which there is at least one."""
    known = all(part.lookups is not None for part in parts)
    return Columns(*_joined(" OR ", parts), tuple([one for part in parts for one in part.lookups]) if known else None)


def within(
    condition: Condition, value: Callable[[int], Any], of_column: Callable[[str, Values], Columns], column: str
) -> Columns:
    """Return the condition that a column is in one of the ranges of a condition.

    value: Returns what is bound for a number.
    of_column: Makes Columns of SQL and values.
    """
    single = [low for low, high in condition.ranges if low == high]
    wide = replace(condition, ranges=tuple([pair for pair in condition.ranges if pair[0] != pair[1]]))
    parts = []
    if single:
        marks = ", ".join("?" * len(single))
        parts.append(of_column(f"{column} IN ({marks})", [value(number) for number in single]))
    for low, high in widened(wide, RANGES_MOST).ranges:
        parts.append(of_column(f"({column} >= ? AND {column} <= ?)", [value(low), value(high)]))
    return any_columns(parts)


def protocols(condition: Condition) -> list[str] | int:
    """Return the names of the protocols of a condition; if there are many, the family that all have, or 0."""
    pairs = [pair for low, high in condition.ranges for pair in range(low, high + 1)]
    if len(pairs) > RANGES_MOST:
        families = {pair // IPV6 for pair in pairs}
        return 0 if len(families) > 1 else 6 if 1 in families else 4
    return [protocol_name(_AF[pair // IPV6], pair % IPV6) for pair in pairs]


def pieces(condition: Condition) -> list[str] | None:
    """Return texts of which a name has to have one; None if that cannot be told.

    A name holds the longest piece of one of the patterns that every encoding leaves as it is.
    """
    found = [max(_plain(pattern), key=len, default="") for pattern in condition.patterns]
    return None if "" in found or len(found) > PARTS_MOST else found


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
