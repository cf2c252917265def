from nfct_fast.search.flow_finder import FlowFinder

DEFAULT_DIRECTORY: str

class Store(FlowFinder):
    def __init__(self, directory: str = ..., *, community_id: int | None = None) -> None: ...
