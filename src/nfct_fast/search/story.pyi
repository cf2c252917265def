from typing import Any, NamedTuple

from nfct_fast.processes.process_object import Ancestor
from nfct_fast.records.record import Flow

class Story(NamedTuple):
    flow: Flow
    since_ns: int
    until_ns: int
    others: tuple[Flow, ...]
    parent: Ancestor | None
    of_parent: tuple[Flow, ...]
    def to_dict(self) -> dict[str, Any]: ...

def tell(source: Any, flow: Flow, window_ns: int, seed: int | None) -> Story: ...
