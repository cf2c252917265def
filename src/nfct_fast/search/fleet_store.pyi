from nfct_fast.search.flow_finder import FlowFinder

class ClickHouseStore(FlowFinder):
    def __init__(self, url: str, *, community_id: int | None = None, hosts: tuple[str, ...] = ()) -> None: ...
