from typing import final

from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.records.record import Flow

@final
class RowPlayer:
    def __init__(self, flow_filter: FlowFilter, community_id: int | None = None) -> None: ...
    def play(self, fd: int) -> list[Flow]: ...
