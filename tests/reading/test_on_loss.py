"""What reading tells of lost events: their count only, a `Lost` where they are missing, or an exception there."""

import asyncio
import time

import pytest

from nfct_fast import Conntrack, Flow, Lost, LostEvents
from support.cli import SECONDS, until
from support.overruns import listening, read_until_quiet

FLOWS = 20_000


def overrun(conntrack, flood):
    """Make more flows than the receive buffer holds, three times; the number made."""
    made = sum(flood(FLOWS, 0, address=f"10.99.{number}.1") for number in range(1, 4))
    until(lambda: sum(conntrack.stats()[i] for i in (0, 2)) >= made, what="all events, received or dropped")
    time.sleep(0.2)
    return made


def test_a_loss_in_its_place(tracked, within, flood):
    with within(), listening(flood, recover=False, on_loss="yield") as conntrack:
        began = time.time_ns()
        made = overrun(conntrack, flood)
        items = conntrack.read(timeout=1)
        ended = time.time_ns()
        lost = conntrack.stats().lost
    losses = [item for item in items if isinstance(item, Lost)]
    assert all(isinstance(item, Flow | Lost) for item in items)
    assert lost > 0 and sum(loss.count for loss in losses) == lost == made - (len(items) - len(losses))
    for loss in losses:
        assert began - 10**9 < loss.since < loss.until < ended and not loss.at_least and loss.netns
    # No flow that came before a loss began is told after it.
    for i, item in enumerate(items):
        if isinstance(item, Lost):
            assert all(flow.time_ns <= item.until for flow in items[:i] if isinstance(flow, Flow))
            assert all(flow.time_ns >= item.since for flow in items[i + 1 :] if isinstance(flow, Flow))


def by_read(conntrack, flows):
    flows += conntrack.read(limit=5_000, timeout=0.2)


def by_iteration(conntrack, flows):
    for flow in conntrack:
        flows.append(flow)


def by_event_loop(conntrack, flows):
    async def take():
        async for flow in conntrack:
            flows.append(flow)

    asyncio.run(take())


@pytest.mark.parametrize("take", [by_read, by_iteration, by_event_loop])
def test_a_loss_is_raised_once_and_reading_goes_on(tracked, within, flood, take):
    with within(), listening(flood, recover=False, on_loss="raise") as conntrack:
        made = overrun(conntrack, flood)
        conntrack.stop()  # what came is still told, and then it ends
        flows, raised, deadline = [], [], time.monotonic() + SECONDS
        while len(flows) + sum(lost.count for lost in raised) < made and time.monotonic() < deadline:
            try:
                take(conntrack, flows)
            except LostEvents as error:
                assert str(error.lost.count) in str(error)
                raised.append(error.lost)
        assert len(flows) + sum(lost.count for lost in raised) == made
        assert sum(lost.count for lost in raised) == conntrack.stats().lost > 0


def test_a_loss_is_only_counted_by_default(tracked, within, flood):
    with within(), listening(flood, recover=False) as conntrack:
        made = overrun(conntrack, flood)
        flows = conntrack.read(timeout=1)
        assert all(isinstance(flow, Flow) for flow in flows) and len(flows) + conntrack.stats().lost == made


def test_what_was_recovered_was_not_lost(tracked, within, flood):
    with within(), listening(flood, on_loss="raise") as conntrack:
        made = flood(FLOWS, 0)
        assert len(read_until_quiet(conntrack)) == made and conntrack.stats().recovered > 0


def test_an_unknown_way():
    with pytest.raises(ValueError, match="on_loss 'ignore': must be one of count, yield, raise"):
        Conntrack(on_loss="ignore")
