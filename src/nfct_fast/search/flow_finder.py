"""How flows are found, wherever they are kept: what `Store` and `ClickHouseStore` have in common."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from types import TracebackType
from typing import Self

from nfct_fast.records.record import Flow
from nfct_fast.search.alert import Alert
from nfct_fast.search.flow_source import FlowSource
from nfct_fast.search.life import Life, Once, lives
from nfct_fast.search.selection import Selection
from nfct_fast.search.story import Story, tell
from nfct_fast.search.time_spans import MOST_NS, NS
from nfct_fast.search.time_words import moment_ns

WINDOW_NS = 120 * NS  # on each side of an alert's time, whose clock may be another host's
STORY_WINDOW_NS = 600 * NS
_HELD_MOST = 100_000  # flows, of 600 bytes each, held back to see which of their records tells most
_BEFORE_NS = 86400 * NS  # how long before an alert a flow without an end is looked for

Moment = datetime | int | str


def to_ns(moment: Moment | None, otherwise: int) -> int:
    """Return ns since the epoch of a datetime (a naive one is local), of ns, or of a text as journalctl takes it."""
    if moment is None:
        return otherwise
    if isinstance(moment, str):
        return moment_ns(moment, time.time_ns())
    if isinstance(moment, datetime):
        return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    return moment


class FlowFinder:
    """What flows are found in. Everything blocks as the disk or the server does. One thread uses it; it is a context
    manager.

    Args:
        source: What has them.
        community_id: The seed of `Flow.community_id`, and whether `to_json()` has it, as of Conntrack.
        hosts: Names of the hosts that are looked at; none for all.
    """

    def __init__(self, source: FlowSource, community_id: int | None, hosts: tuple[str, ...] = ()) -> None:
        self.complaints: list[str] = []
        self._source = source
        self._seed = community_id
        self._hosts = hosts

    def _complain(self, sentence):
        self.complaints.append(sentence)

    def find(
        self,
        filter: str | None = None,
        *,
        protocol: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        alive: bool = False,
        community_id: str | None = None,
        all_records: bool = False,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Flow]:
        """Yield flows in order of time.

        Args:
            filter, protocol: Which flows, as of Conntrack.
            since, until: From when on, and before when: a datetime, ns since the epoch, or a text such as "yesterday",
                "-1h" or "2026-11-24 03:12 UTC". It is the time of the record that counts: of a NEW the flow's
                beginning, of a DESTROY or FLOW its end.
            alive: Whether to look for flows that were alive at some time between, instead.
            community_id: A Community ID with the seed 0, of either side of NAT.
            all_records: Whether to yield every record; otherwise only one of each flow, that of its end if it is there.
            newest_first: The order.
            limit: Yield at most this many, the newest ones, whatever the order.

        Raises ValueError if an argument cannot be read, at once; OSError if what is kept cannot.
        """
        selection = Selection(
            filter, protocol, to_ns(since, 0), to_ns(until, MOST_NS), alive, community_id, hosts=self._hosts
        )
        self._source.refresh()
        if limit is None:
            return self._find(selection, all_records, newest_first)
        newest = islice(self._find(selection, all_records, True), limit)
        return newest if newest_first else iter(list(newest)[::-1])

    def _scan(self, selection, newest_first):
        flows = self._source.scan(selection, newest_first=newest_first, community_id=self._seed)
        wanted = selection.community_id
        if wanted is None or self._seed:  # with another seed what the source can tell has to do
            return flows
        return (flow for flow in flows if wanted in (flow.community_id, flow.community_id_nat))

    def _find(self, selection, all_records, newest_first):
        flows = self._scan(selection, newest_first)
        if all_records:
            yield from flows
            return
        once = Once(newest_first)
        if not newest_first:
            # Ends come last. If there are too many records to hold, they are read twice.
            held = list(islice(flows, _HELD_MOST))
            for flow in chain(held, flows):
                once.add(flow)
            flows = held
            if len(held) == _HELD_MOST:
                flows = self._scan(selection, False)
        for flow in flows:
            if newest_first:
                once.add(flow)
            if not once.is_told(flow):
                yield flow

    def find_alert(self, alert: Alert, *, window_ns: int = WINDOW_NS, filter: str | None = None) -> list[Life]:
        """Return the flows that an alert may mean, in order of time: of its ends, whichever side of NAT it saw and
        whichever way its packet went, and alive within `window_ns` of its time.

        filter: What else must be true of them.

        Raises as find() does.
        """
        since, until = 0, MOST_NS
        if alert.time_ns is not None:
            since = max(0, alert.time_ns - window_ns)
            until = min(MOST_NS, (alert.until_ns or alert.time_ns) + window_ns)
        selection = Selection(
            alert.filter if not filter else f"({alert.filter}) and ({filter})",
            since_ns=max(0, since - _BEFORE_NS),
            until_ns=until,
            alive=True,
            community_id=alert.community_id,
            hosts=self._hosts,
        )
        self._source.refresh()
        found = [
            life
            for life in lives(self._scan(selection, False))
            if life.began_ns < until and (life.ended_ns is None or life.ended_ns >= since)
        ]
        return sorted(found, key=lambda life: life.began_ns)

    def story(self, flow: Flow, *, window_ns: int = STORY_WINDOW_NS) -> Story:
        """Return what is known around a flow: what else its process and that process's parent did.

        window_ns: How long before the flow's beginning and after its end.

        Raises OSError if what is kept cannot be read.
        """
        self._source.refresh()
        return tell(self._source, flow, window_ns, self._seed)

    def lost(self, since: Moment | None = None, until: Moment | None = None) -> int:
        """Return how many events are known to have been lost within a time: what is not found may be among them."""
        selection = Selection(since_ns=to_ns(since, 0), until_ns=to_ns(until, MOST_NS), hosts=self._hosts)
        self._source.refresh()
        return self._source.sum_lost(selection)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is kept there, as far as it was looked."""
        return self._source.is_empty

    def close(self) -> None:
        """Close what is open. It can be used again."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
