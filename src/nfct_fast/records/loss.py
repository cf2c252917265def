"""Lost events, as whoever reads flows is told of them."""

from typing import NamedTuple


class Lost(NamedTuple):
    """Events that were lost for good, in the place of the stream where they are missing.

    Times are in ns since the epoch, as `Flow.time_ns`.
    """

    count: int  # of events
    since: int | None  # when none of them was lost yet; None: not known
    until: int  # when the loss had been counted: the last of them was lost before
    at_least: bool  # there may be more
    netns: int | None  # inode of the network namespace they were lost in; None: not known


class LostEvents(Exception):
    """Raised by Conntrack(on_loss="raise") where events are missing. Reading can go on after it.

    lost: a `Lost`.
    """

    def __init__(self, lost: Lost):
        super().__init__(lost)
        self.lost = lost

    def __str__(self) -> str:
        more = " or more" if self.lost.at_least else ""
        return f"{self.lost.count}{more} events lost"
