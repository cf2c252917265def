"""What flows are found in: a store's files, or a table of ClickHouse."""

from collections.abc import Iterator
from typing import Protocol

from nfct_fast.records.record import Flow
from nfct_fast.search.selection import Selection


class FlowSource(Protocol):
    """Blocks as a disk or a server does. One thread uses it. What it raises is an OSError."""

    def refresh(self) -> None:
        """Look what there is now, before anything is asked of it."""

    def scan(
        self, selection: Selection, *, newest_first: bool = False, community_id: int | None = None
    ) -> Iterator[Flow]:
        """Yield the flows of a selection, in order of time.

        community_id: The seed of what is printed, as of Conntrack.
        """

    def sum_lost(self, selection: Selection) -> int:
        """Return how many events are known to have been lost in the time, and on the hosts, of a selection."""

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing at all when it was last looked."""

    def close(self) -> None:
        """Close it. It can be used again."""
