"""Which flows of a store are looked for, as a filter and as SQL."""

from dataclasses import dataclass, field

from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.search.column_conditions import Columns, Lookup, candidates
from nfct_fast.search.time_spans import MOST_NS
from nfct_fast.store.schema import community_key


@dataclass(slots=True)
class Selection:
    """All of this has to be true of a flow.

    Attributes:
        filter, protocol: As of Conntrack.
        since_ns, until_ns: Of its record's time, in ns since the epoch: since <= time < until.
        alive: Of its life instead, as far as its record tells when it began: it was alive at some time between.
        conditions: Of the columns of `flow`: only rows for which all are true are looked at.
        flow_filter: The compiled filter, which decides.
        columns: Conditions of which each is true of every row that is looked for.

    Raises ValueError if the filter cannot be read.
    """

    filter: str | None = None
    protocol: str | None = None
    since_ns: int = 0
    until_ns: int = MOST_NS
    alive: bool = False
    conditions: tuple[Columns, ...] = ()
    flow_filter: FlowFilter = field(init=False)
    columns: list[Columns] = field(init=False)

    def __post_init__(self) -> None:
        self.flow_filter = FlowFilter(self.protocol, self.filter)
        self.columns = [*self.conditions, *candidates(self.flow_filter.expression), self._times()]

    def _times(self) -> Columns:
        since, until = self.since_ns, self.until_ns
        if self.alive:
            return Columns("time >= ? AND (time < ? OR began < ?)", [since, until, until])
        sql, values = "time >= ? AND time < ?", [since, until]
        return Columns(sql, values, (Lookup("flow_time", sql, values),))


def same_community(community_id: str) -> Columns:
    """Return the condition that a flow has this Community ID, before or after NAT. ValueError if it is none."""
    key = community_key(community_id)
    lookups = [Lookup(f"flow_{name}", f"{name} = ?", [key]) for name in ("community", "community_nat")]
    return Columns("(community = ? OR community_nat = ?)", [key] * 2, tuple(lookups))


def of_process(entity_id: str) -> Columns:
    """Return the condition that a process is the flow's owner or peer."""
    parts = [f"{end} IN (SELECT id FROM process WHERE entity_id = ?)" for end in ("owner", "peer")]
    lookups = [Lookup(f"flow_{end}", sql, [entity_id]) for end, sql in zip(("owner", "peer"), parts)]
    return Columns(f"({' OR '.join(parts)})", [entity_id] * 2, tuple(lookups))
