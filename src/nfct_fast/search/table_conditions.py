"""The conditions of a selection on the table nfct_flows, in ClickHouse's SQL, with their values bound by type.

There it pays to ask all that the columns tell: what is not asked for crosses the network.
"""

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from nfct_fast.clickhouse.http_query import Bound
from nfct_fast.filters.expression import ALL_BITS, EITHER, OWNER, PEER, Condition
from nfct_fast.filters.flow_program import DIRECTIONS, REASONS
from nfct_fast.search.row_conditions import (
    EVERY,
    RANGES_MOST,
    TUPLES,
    Columns,
    any_columns,
    candidates,
    pieces,
    protocols,
    within,
)
from nfct_fast.search.selection import Selection
from nfct_fast.search.time_spans import MOST_NS

_PREFIXES = {OWNER: ("",), PEER: ("peer_",), EITHER: ("", "peer_")}
_NUMBERS = {"sport": "UInt16", "dport": "UInt16", "zone": "UInt16", "mark": "UInt32", "netns": "UInt64"}
_OF_OWNERS = {"pid": "UInt32", "uid": "UInt32", "gid": "UInt32"}
_NAMES = ("comm", "exe", "cmdline", "unit", "container")
_ADDRESSES = {"4": lambda number: f"::ffff:{IPv4Address(number)}", "6": lambda number: str(IPv6Address(number))}
_LIKE = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"})


def table_conditions(selection: Selection) -> list[Columns]:
    """Return conditions on the table of which each is true of every row that is looked for."""
    found = [_hosts(selection.hosts)] if selection.hosts else []
    found += _times(selection)
    found += candidates(selection.flow_filter.expression, _condition)
    if selection.community_id is not None:
        found.append(Columns("has(community_ids, ?)", [Bound("String", selection.community_id)]))
    if selection.entity_id is not None:
        value = Bound("String", selection.entity_id)
        # The index is one of all processes of a flow, and of those that they descend from.
        found.append(Columns("(has(process_ids, ?) AND (entity_id = ? OR peer_entity_id = ?))", [value] * 3))
    return found


def lost_conditions(selection: Selection) -> list[Columns]:
    """Return the conditions on the table nfct_losses."""
    found = [_hosts(selection.hosts)] if selection.hosts else []
    return [*found, *_times(replace(selection, alive=False))]


def _hosts(hosts):
    parts = []
    for host in hosts:
        if "*" in host or "?" in host:
            parts.append(Columns("host LIKE ?", [Bound("String", host.translate(_LIKE))]))
        else:
            parts.append(Columns("host = ?", [Bound("String", host)]))
    return any_columns(parts)


def _times(selection):
    time = "fromUnixTimestamp64Nano(?, 'UTC')"
    since, until = (Bound("Int64", str(ns)) for ns in (selection.since_ns, selection.until_ns))
    if selection.since_ns > 0:
        yield Columns(f"time >= {time}", [since])
    if selection.until_ns >= MOST_NS:
        return
    if selection.alive:
        began = "ifNull(toUnixTimestamp64Nano(start), toUnixTimestamp64Nano(time) - toInt64(duration_ns))"
        yield Columns(f"(time < {time} OR type != 'NEW' AND {began} < ?)", [until, until])
    else:
        yield Columns(f"time < {time}", [until])


def _number(type, number):
    return Bound(type, str(number))


def _condition(condition: Condition) -> Columns:
    field = condition.field
    if field == "pair":
        return _protocols(condition)
    if field == "first_seen":
        return Columns("first_seen IS NOT NULL")
    if field == "dir":
        return _words("direction", {number: name for name, number in DIRECTIONS.items()}, condition)
    if field == "reason":
        reasons = dict(enumerate(REASONS, 1))
        return any_columns([_words(f"{end}reason", reasons, condition) for end in _PREFIXES[condition.ends]])
    if field in _OF_OWNERS:
        value = partial(_number, _OF_OWNERS[field])
        return any_columns([within(condition, value, Columns, f"{end}{field}") for end in _PREFIXES[condition.ends]])
    if field in _NAMES:
        found = pieces(condition)
        if found is None:
            return EVERY
        names = [f"{end}{field}" for end in _PREFIXES[condition.ends]]
        return any_columns(
            [Columns(f"position({name}, ?) > 0", [Bound("String", one)]) for name in names for one in found]
        )
    if field in ("zone", "mark", "netns"):
        if condition.mask != ALL_BITS:
            return EVERY
        return within(condition, partial(_number, _NUMBERS[field]), Columns, field)
    address = _ADDRESSES.get(field[-1])
    field = field[:-1] if address else field
    if field not in TUPLES:
        return EVERY

    def value(number):
        return Bound("IPv6", address(number)) if address else Bound("UInt16", str(number))

    found = any_columns([within(condition, value, Columns, column) for column in TUPLES[field]])
    if not address or len(condition.ranges) > RANGES_MOST or any(low != high for low, high in condition.ranges):
        return found
    # The index is one of all addresses of a flow.
    values = [value(number) for number, _ in condition.ranges]
    return Columns(f"(hasAny(addresses, [{', '.join('?' * len(values))}]) AND {found.sql})", [*values, *found.values])


def _words(column, names, condition):
    """A column has the name of one of the numbers."""
    found = [names[number] for low, high in condition.ranges for number in range(low, high + 1) if number in names]
    if not found:
        return EVERY
    return Columns(f"{column} IN ({', '.join('?' * len(found))})", [Bound("String", name) for name in found])


def _protocols(condition):
    names = protocols(condition)
    if isinstance(names, int):
        return Columns(f"startsWith(proto, 'ipv{names}/')") if names else EVERY
    return Columns(f"proto IN ({', '.join('?' * len(names))})", [Bound("String", name) for name in names])
