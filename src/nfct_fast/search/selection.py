"""Which flows of a store are looked for, and in what order."""

from dataclasses import dataclass

from nfct_fast.filters.expression import Expression
from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.search.column_conditions import Sql, candidates
from nfct_fast.search.time_spans import MOST_NS
from nfct_fast.store.schema import community_key


@dataclass(frozen=True, slots=True)
class Selection:
    """All of this has to be true of a flow.

    Attributes:
        filter, protocol: As of Conntrack.
        since_ns, until_ns: Of its record's time, in ns since the epoch: since <= time < until.
        alive: Of its life instead, as far as its record tells when it began: it was alive at some time between.
        community_id: Its own, or that after NAT, with the seed 0.
        condition: Of the columns of `flow`, as SQL with its values. Only rows for which it is true are looked at.
    """

    filter: str | None = None
    protocol: str | None = None
    since_ns: int = 0
    until_ns: int = MOST_NS
    alive: bool = False
    community_id: str | None = None
    condition: Sql = ("", [])

    def columns(self) -> Sql:
        """Return a condition on `flow` that is true of every row that is looked for, without its time.

        Raises ValueError if the filter or the Community ID cannot be read.
        """
        expression: Expression = FlowFilter(self.protocol, self.filter).expression
        parts = [candidates(expression), self.condition]
        if self.community_id is not None:
            parts.append(("(community = ? OR community_nat = ?)", [community_key(self.community_id)] * 2))
        parts = [part for part in parts if part[0]]
        return " AND ".join([f"({sql})" for sql, _ in parts]), [value for _, values in parts for value in values]

    def times(self) -> Sql:
        """Return the same of the time alone."""
        sql, values = "time >= ?", [self.since_ns]
        if not self.alive:
            return f"{sql} AND time < ?", [*values, self.until_ns]
        return f"{sql} AND (time < ? OR began < ?)", [*values, self.until_ns, self.until_ns]
