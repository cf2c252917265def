"""What a filter says of the columns of a store, as SQL: true of every row of which the filter may be true.

The filter itself decides on replay, so what the columns do not tell is taken for true here. "not" is never asked of
them: its conditions would have to be exact, and no index helps with them.
"""

from dataclasses import replace

from nfct_fast.filters.expression import EITHER, IPV6, OWNER, PEER, AllOf, Condition, Expression, widened
from nfct_fast.text.protocol import protocol_name

_PARTS_MOST = 50  # of one "and" or "or"
_RANGES_MOST = 64  # of one condition: SQLite looks each up in the index
_VALUES_MOST = 10_000  # bound to a statement, which has room for 32,766
_AF = {0: 2, 1: 10}  # AF_INET, AF_INET6, by "pair" above 255
_ENDS = {OWNER: ("owner",), PEER: ("peer",), EITHER: ("owner", "peer")}
# The columns of a reply's field: those after NAT, or if there was none, the original ones the other way round.
_TUPLES = {
    "sport": ("sport",), "dport": ("dport",), "src": ("src",), "dst": ("dst",),
    "reply_sport": ("nat_dport", "dport"), "reply_dport": ("nat_sport", "sport"),
    "reply_src": ("nat_dst", "dst"), "reply_dst": ("nat_src", "src"),
}  # fmt: skip

Sql = tuple[str, list[int | bytes | str]]
EVERY: Sql = ("", [])


def candidates(expression: Expression) -> Sql:
    """Return a condition on the table `flow` and its values; an empty one if the columns exclude nothing."""
    sql, values = _expression(expression)
    return (sql, values) if len(values) <= _VALUES_MOST else EVERY


def _expression(expression) -> Sql:
    if isinstance(expression, Condition):
        return EVERY if expression.negated else _condition(expression)
    parts = [_expression(part) for part in expression.parts[: _PARTS_MOST + 1]]
    if isinstance(expression, AllOf):
        return _joined(" AND ", [part for part in parts if part != EVERY][:_PARTS_MOST])
    return EVERY if EVERY in parts or not parts or len(parts) > _PARTS_MOST else _joined(" OR ", parts)


def _joined(word, parts) -> Sql:
    if len(parts) < 2:
        return parts[0] if parts else EVERY
    return f"({word.join([sql for sql, _ in parts])})", [value for _, values in parts for value in values]


def _condition(condition) -> Sql:
    field = condition.field
    if field == "pair":
        return _protocols(condition.ranges)
    if field == "pid":
        return _of_processes(condition.ends, [_within("pid", condition)])
    if field in ("comm", "exe", "cmdline", "unit", "container"):
        return _names(field, condition)
    if field[-1] in "46" and field[:-1] in _TUPLES:
        return _joined(" OR ", [_within(column, condition, int(field[-1])) for column in _TUPLES[field[:-1]]])
    if field in _TUPLES:
        return _joined(" OR ", [_within(column, condition) for column in _TUPLES[field]])
    return EVERY


def _within(column, condition, version=0) -> Sql:
    """The column is in one of the ranges: of numbers, or of addresses of a version."""

    def value(number):
        return number.to_bytes(4 if version == 4 else 16, "big") if version else number

    single = [low for low, high in condition.ranges if low == high]
    wide = replace(condition, ranges=tuple([pair for pair in condition.ranges if pair[0] != pair[1]]))
    parts: list[Sql] = []
    if single:
        parts.append((f"{column} IN ({', '.join('?' * len(single))})", [value(number) for number in single]))
    for low, high in widened(wide, _RANGES_MOST).ranges:
        parts.append((f"{column} BETWEEN ? AND ?", [value(low), value(high)]))
    return _joined(" OR ", parts)


def _protocols(ranges) -> Sql:
    pairs = [pair for low, high in ranges for pair in range(low, high + 1)]
    if len(pairs) > _RANGES_MOST:
        families = {pair // IPV6 for pair in pairs}
        return EVERY if len(families) > 1 else (f"length(src) = {16 if 1 in families else 4}", [])
    names = [protocol_name(_AF[pair // IPV6], pair % IPV6) for pair in pairs]
    return f"proto IN ({', '.join('?' * len(names))})", names


def _names(field, condition) -> Sql:
    """A name holds the longest piece of one of the patterns that every encoding leaves as it is."""
    pieces = [max(_plain(pattern), key=len, default="") for pattern in condition.patterns]
    if "" in pieces or len(pieces) > _PARTS_MOST:
        return EVERY
    return _of_processes(condition.ends, [(f"instr({field}, ?) > 0", [piece]) for piece in pieces])


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


def _of_processes(ends, parts) -> Sql:
    sql, values = _joined(" OR ", parts)
    return _joined(" OR ", [(f"{end} IN (SELECT id FROM process WHERE {sql})", values) for end in _ENDS[ends]])
