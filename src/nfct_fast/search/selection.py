"""Which flows of a store are looked for, as a filter and as SQL."""

from dataclasses import dataclass, field

from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.search.column_conditions import EVERY, Sql, candidates
from nfct_fast.search.time_spans import MOST_NS
from nfct_fast.store.schema import community_key


@dataclass(slots=True)
class Selection:
    """All of this has to be true of a flow.

    Attributes:
        filter, protocol: As of Conntrack.
        since_ns, until_ns: Of its record's time, in ns since the epoch: since <= time < until.
        alive: Of its life instead, as far as its record tells when it began: it was alive at some time between.
        community_id: Its own, or that after NAT, with the seed 0.
        condition: Of the columns of `flow`, as SQL with its values. Only rows for which it is true are looked at.
        flow_filter: The compiled filter, which decides.
        where: A condition on `flow` that is true of every row that is looked for.

    Raises ValueError if the filter or the Community ID cannot be read.
    """

    filter: str | None = None
    protocol: str | None = None
    since_ns: int = 0
    until_ns: int = MOST_NS
    alive: bool = False
    community_id: str | None = None
    condition: Sql = EVERY
    flow_filter: FlowFilter = field(init=False)
    where: Sql = field(init=False)

    def __post_init__(self) -> None:
        self.flow_filter = FlowFilter(self.protocol, self.filter)
        parts = [self._times(), candidates(self.flow_filter.expression), self.condition]
        if self.community_id is not None:
            parts.append(same_community(self.community_id))
        parts = [part for part in parts if part != EVERY]
        self.where = " AND ".join([f"({sql})" for sql, _ in parts]), [value for _, some in parts for value in some]

    def _times(self) -> Sql:
        if not self.alive:
            return "time >= ? AND time < ?", [self.since_ns, self.until_ns]
        return "time >= ? AND (time < ? OR began < ?)", [self.since_ns, self.until_ns, self.until_ns]


def same_community(community_id: str) -> Sql:
    """Return the condition that a flow has this Community ID, before or after NAT. ValueError if it is none."""
    return "community = ? OR community_nat = ?", [community_key(community_id)] * 2
