"""Which flows are looked for, wherever they are kept."""

from dataclasses import dataclass, field

from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.search.time_spans import MOST_NS
from nfct_fast.store.schema import community_key


@dataclass(slots=True)
class Selection:
    """All of this has to be true of a flow.

    Attributes:
        filter, protocol: As of Conntrack.
        since_ns, until_ns: Of its record's time, in ns since the epoch: since <= time < until.
        alive: Of its life instead, as far as its record tells when it began: it was alive at some time between.
        community_id: It is its Community ID with the seed 0, before or after NAT; as far as a source can tell.
        entity_id: A process of which it is the flow, as owner or peer.
        hosts: Names of hosts, with "*" and "?" as patterns of a shell have them, of which one recorded it.
        flow_filter: The compiled filter, which decides.

    Raises ValueError if the filter or the Community ID cannot be read.
    """

    filter: str | None = None
    protocol: str | None = None
    since_ns: int = 0
    until_ns: int = MOST_NS
    alive: bool = False
    community_id: str | None = None
    entity_id: str | None = None
    hosts: tuple[str, ...] = ()
    flow_filter: FlowFilter = field(init=False)

    def __post_init__(self) -> None:
        self.flow_filter = FlowFilter(self.protocol, self.filter)
        if self.community_id is not None:
            community_key(self.community_id)
