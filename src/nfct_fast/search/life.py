"""From when to when a flow lived, as its records say, and which records are of one flow."""

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from nfct_fast.records.record import Flow

_ENDS = ("DESTROY", "FLOW")
# A NEW event is read up to so long after the kernel made the entry, whose time its end tells.
_LATE_NS = 2_000_000_000


def is_end(flow: Flow) -> bool:
    """Whether a record tells of a flow's end, and so of all of it."""
    return flow.type in _ENDS


def began_ns(flow: Flow) -> int | None:
    """When a flow began, in ns since the epoch; None if its record does not say."""
    if flow.start_ns is not None:
        return flow.start_ns
    if is_end(flow):
        return None if flow.duration_ns is None else flow.time_ns - flow.duration_ns
    return flow.time_ns


def flow_key(flow: Flow) -> Hashable:
    """What all records of one conntrack entry have in common; an entry made later may have it as well."""
    return flow.host, flow.id, flow.netns, flow.zone, flow.proto, flow.original


class Once:
    """Tells which records to leave out, as a better one of the same flow is shown: that of its end, or of its begin.

    All ends have to be added before a record is asked for that is older; and with newest_first=False all records, in
    order of time, as only the ends of such flows are remembered of which another record was before.

    newest_first: The order in which records are asked for.
    """

    def __init__(self, newest_first: bool = False) -> None:
        self._newest_first = newest_first
        self._ends: dict[int, list[tuple[int, int]]] = {}  # from and to, by the hash of a key
        self._shown: set[int] = set()  # flows without an end of which a record is shown
        self._going: set[int] = set()  # flows of which a record was added that is no end

    def add(self, flow: Flow) -> None:
        """Note the end of a flow."""
        key = hash(flow_key(flow))
        if not is_end(flow):
            if not self._newest_first:
                self._going.add(key)
        elif self._newest_first or key in self._going:
            began = began_ns(flow)
            life = (0 if began is None else began - _LATE_NS, flow.time_ns)
            self._ends.setdefault(key, []).append(life)

    def is_told(self, flow: Flow) -> bool:
        """Whether another record tells of a flow that has not ended by this one."""
        if is_end(flow):
            return False
        key = hash(flow_key(flow))
        if any(begin <= flow.time_ns <= end for begin, end in self._ends.get(key, ())):
            return True
        told = key in self._shown and (flow.type == "UPDATE" or self._newest_first)
        self._shown.add(key)
        if flow.type == "NEW" and self._newest_first:
            self._shown.discard(key)  # what is older is of another entry
        return told


class Life(NamedTuple):
    """One flow, by the record that tells most of it."""

    flow: Flow
    began_ns: int
    ended_ns: int | None  # None: not known, it may live on


def lives(flows: Iterable[Flow]) -> Iterator[Life]:
    """Yield each flow of records in order of time, those whose end is not known last."""
    going: dict[Hashable, Flow] = {}
    for flow in flows:
        key = flow_key(flow)
        if is_end(flow):
            began, first = began_ns(flow), going.pop(key, None)
            if began is None:
                began = flow.time_ns if first is None else first.time_ns
            yield Life(flow, began, flow.time_ns)
        elif flow.type == "NEW" and key in going:
            before = going[key]
            yield Life(before, before.time_ns, flow.time_ns)
            going[key] = flow
        else:
            going.setdefault(key, flow)
    for flow in going.values():
        yield Life(flow, flow.time_ns, None)
