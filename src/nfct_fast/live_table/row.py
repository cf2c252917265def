"""The numbers that are shown: of a row, and of all together."""

from typing import NamedTuple

from nfct_fast.live_table.parties import Party


class Row(NamedTuple):
    """What is shown of one row. Rates are per second, of the last interval; totals are of the time since the start."""

    key: object  # identifies it in its grouping; None for what there is no room for
    name: str  # escaped
    party: Party  # who last made a flow of it
    live: int  # flows
    began: float  # flows
    bytes_in: float
    bytes_out: float
    total_in: int
    total_out: int
    ended: bool  # nothing of it lives; it is only kept for a while


class Totals(NamedTuple):
    """The sums of all rows, and what is not in any."""

    live: int  # flows
    closed: int  # flows that have ended and are still kept
    began: float  # flows/s
    bytes_in: float
    bytes_out: float
    total_in: int
    total_out: int
    entries: int  # of the conntrack tables
    uncounted: int  # of these, entries without bytes
    unfollowed: int  # flows there was no room for, since the start
