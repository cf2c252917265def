"""What happened around one flow: what else its process did, and that process's parent."""

from itertools import islice
from typing import Any, NamedTuple

from nfct_fast.processes.process_object import Ancestor
from nfct_fast.records.record import Flow
from nfct_fast.search.flow_source import FlowSource
from nfct_fast.search.life import Once, began_ns
from nfct_fast.search.selection import Selection

_MOST = 1000  # flows of each process


class Story(NamedTuple):
    """Around one flow."""

    flow: Flow
    since_ns: int  # which time it is about, in ns since the epoch
    until_ns: int
    others: tuple[Flow, ...]  # of the same process, at most 1,000
    parent: Ancestor | None
    of_parent: tuple[Flow, ...]  # likewise

    def to_dict(self) -> dict[str, Any]:
        """Return it as the command line writes it with --json."""
        return {
            "flow": self.flow.to_dict(),
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
            "others": [flow.to_dict() for flow in self.others],
            "parent": None
            if self.parent is None
            else {k: v for k, v in self.parent._asdict().items() if v is not None},
            "of_parent": [flow.to_dict() for flow in self.of_parent],
        }


def tell(source: FlowSource, flow: Flow, window_ns: int, seed: int | None) -> Story:
    """Return the story of a flow. Blocks as its source does."""
    began = began_ns(flow)
    since, until = max(0, (flow.time_ns if began is None else began) - window_ns), flow.time_ns + window_ns
    process = flow.owner.process
    parent = process.ancestors[0] if process is not None and process.ancestors else None

    def did(entity_id):
        if entity_id is None:
            return ()
        selection = Selection(since_ns=since, until_ns=until, alive=True, entity_id=entity_id)
        once = Once()
        flows = list(islice(source.scan(selection, community_id=seed), 2 * _MOST))
        for other in flows:
            once.add(other)
        return tuple([other for other in flows if not once.is_told(other) and other != flow][:_MOST])

    return Story(
        flow,
        since,
        until,
        did(None if process is None else process.entity_id),
        parent,
        did(None if parent is None else parent.entity_id),
    )
