"""The conditions of a selection on the tables of a store's files, in SQLite's SQL: see store/schema.py."""

from functools import partial

from nfct_fast.filters.expression import EITHER, OWNER, PEER, Condition
from nfct_fast.search.row_conditions import (
    EVERY,
    TUPLES,
    Columns,
    Lookup,
    Values,
    any_columns,
    candidates,
    pieces,
    protocols,
    within,
)
from nfct_fast.search.selection import Selection
from nfct_fast.store.schema import community_key

_ENDS = {OWNER: ("owner",), PEER: ("peer",), EITHER: ("owner", "peer")}
_INDEXED = ("sport", "dport", "src", "dst", "nat_src", "nat_dst", "owner", "peer", "seen")


def file_conditions(selection: Selection) -> list[Columns]:
    """Return conditions on the table `flow` of which each is true of every row that is looked for."""
    found = candidates(selection.flow_filter.expression, _condition)
    if selection.community_id is not None:
        found.append(_same_community(selection.community_id))
    if selection.entity_id is not None:
        found.append(_of_processes(EITHER, Columns("entity_id = ?", [selection.entity_id])))
    return [*found, _times(selection)]


def _times(selection) -> Columns:
    since, until = selection.since_ns, selection.until_ns
    if selection.alive:
        return Columns("time >= ? AND (time < ? OR began < ?)", [since, until, until])
    sql, values = "time >= ? AND time < ?", [since, until]
    return Columns(sql, values, (Lookup("flow_time", sql, values),))


def _same_community(community_id) -> Columns:
    key = community_key(community_id)
    lookups = [Lookup(f"flow_{name}", f"{name} = ?", [key]) for name in ("community", "community_nat")]
    return Columns("(community = ? OR community_nat = ?)", [key] * 2, tuple(lookups))


def _of_column(column: str, sql: str, values: Values) -> Columns:
    lookups = (Lookup(f"flow_{column}", sql, values),) if column in _INDEXED else None
    return Columns(sql, values, lookups)


def _condition(condition: Condition) -> Columns:
    field = condition.field
    if field == "pair":
        return _protocols(condition)
    if field == "pid":
        return _of_processes(condition.ends, within(condition, int, Columns, "pid"))
    if field == "first_seen":
        return _of_column("seen", "seen > 0", [])
    if field in ("comm", "exe", "cmdline", "unit", "container"):
        found = pieces(condition)
        if found is None:
            return EVERY
        return _of_processes(
            condition.ends, any_columns([Columns(f"instr({field}, ?) > 0", [piece]) for piece in found])
        )
    size = {"4": 4, "6": 16}.get(field[-1], 0)
    field = field[:-1] if size else field
    if field not in TUPLES:
        return EVERY

    def value(number):
        return number.to_bytes(size, "big") if size else number

    return any_columns([within(condition, value, partial(_of_column, column), column) for column in TUPLES[field]])


def _protocols(condition):
    names = protocols(condition)
    if isinstance(names, int):
        return Columns(f"length(src) = {16 if names == 6 else 4}") if names else EVERY
    return Columns(f"proto IN ({', '.join('?' * len(names))})", names)


def _of_processes(ends, of_process) -> Columns:
    """Where only the cgroup of a socket is known, the columns name a process that has nothing else."""
    sql, values = of_process.sql, of_process.values
    return any_columns(
        [_of_column(end, f"{end} IN (SELECT id FROM process WHERE {sql})", values) for end in _ENDS[ends]]
    )
