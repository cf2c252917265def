"""`Store`, what programs and the command line find flows in that `nfct-fast --store` keeps."""

from nfct_fast.search.file_source import FileSource
from nfct_fast.search.flow_finder import FlowFinder

DEFAULT_DIRECTORY = "/var/lib/nfct-fast"


class Store(FlowFinder):
    """The flows that `nfct-fast --store DIRECTORY` keeps, to be found while it writes or afterwards.

    Args:
        directory: Of the store.
        community_id: The seed of `Flow.community_id`, and whether `to_json()` has it, as of Conntrack.

    Files are opened read only, and need no privileges but to be read. If their owner is not trusted, run this as that
    user: a forged file is refused as far as SQLite can tell. One that cannot be read is passed over, and `complaints`
    has a sentence about it. Everything blocks as the disk does. One thread uses it; it is a context manager.
    """

    def __init__(self, directory: str = DEFAULT_DIRECTORY, *, community_id: int | None = None) -> None:
        super().__init__(FileSource(directory, self._complain), community_id)
