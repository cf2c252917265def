"""Flows that begin while the program starts: from the first event on, each is reported once or counted as lost."""

import json
import threading
import time
from contextlib import contextmanager

import pytest

from nfct_fast import Conntrack
from support.cli import SECONDS, Program, until
from support.overruns import read_until_quiet

ADDRESS, PORTS = "10.99.1.1", 60_000  # see flood.c


@contextmanager
def flooding(flood, count, rate, how="one"):
    """Flows 0 to count - 1 are made one after the other, the first thousand before the block; made[0]: how many."""
    made, before = [], sent()
    thread = threading.Thread(target=lambda: made.append(flood(count, rate, how, ADDRESS)))
    thread.start()
    try:
        until(lambda: sent() > before + 1_000, what="the flood")
        yield made
    finally:
        thread.join()


def sent():
    """Packets the thread's namespace sent into the flood's device; each kind of device counts them elsewhere."""
    with open("/proc/thread-self/net/dev") as devices:
        [line] = [line for line in devices if line.strip().startswith("sink:")]
    received_dropped, sent, sent_dropped = (int(line.split()[field]) for field in (4, 10, 12))
    return received_dropped + sent + sent_dropped


def number(dst, dport):
    """Return the number of a flow of the flood, given its destination."""
    return (int(dst.rpartition(".")[2]) - 1) * PORTS + dport - 1024


def assert_accounted(numbers, recovered, lost, made):
    """Check that flows 0 to made - 1 are reported or counted. numbers: those reported, in order; recovered: of them."""
    first = numbers[0]
    assert 0 < first < made and first not in recovered
    assert len(set(numbers)) == len(numbers) and min(numbers) == first, "reported twice, or begun before the start"
    assert len(numbers) + lost == made - first
    received = [number for number in numbers if number not in recovered]
    assert received == sorted(received)


@pytest.mark.parametrize("rcvbuf", [4096, 1 << 17, 64 << 20])
@pytest.mark.parametrize("before", [0, 100_000])
def test_a_reader_that_starts_amid_a_flood_accounts_for_each_flow(tracked, within, flood, rcvbuf, before):
    with within():
        flood(before, 0, address="10.99.100.1")
        with flooding(flood, 100_000, 0) as made:
            with Conntrack(
                protocol="ipv4/udp", attribution="off", probe=False, rcvbuf=rcvbuf, rcvbuf_limit=rcvbuf
            ) as conntrack:
                flows = read_until_quiet(conntrack, SECONDS / 2)  # a large table may have to be read before the first
                stats = conntrack.stats()
    assert_accounted(
        [number(flow.dst, flow.dport) for flow in flows],
        {number(flow.dst, flow.dport) for flow in flows if flow.recovered},
        stats.lost,
        made[0],
    )
    assert stats.lost == stats.dropped - stats.recovered
    if rcvbuf == 4096:
        assert stats.overruns > 0 and stats.lost > 0  # before the first reading of the table, too
    if rcvbuf == 64 << 20:
        assert stats.dropped == 0


@pytest.mark.parametrize(
    "options", [(), ("--rcvbuf", "4K", "--rcvbuf-max", "4K"), ("--attribution", "off", "--rcvbuf", "64K")]
)
def test_the_program_starts_tracking_amid_a_flood(netns, within, flood, options):
    """Nothing is tracked before: what it turns on itself, it hears."""
    with within(), flooding(flood, 100_000, 30_000) as made:
        with Program(netns, "--track", "--json", "-p", "ipv4/udp", *options) as program:
            while not made:
                time.sleep(0.05)
            program.await_all_read()
            assert program.end()[0] == 0
    records = [json.loads(line) for line in program.lines]
    flows = [record for record in records if record["type"] == "NEW"]
    assert all(record["lost"] > 0 for record in records if record["type"] == "LOST")
    numbers = [number(flow["original"]["dst"], flow["original"]["dport"]) for flow in flows]
    assert_accounted(
        numbers,
        {number for number, flow in zip(numbers, flows) if flow.get("recovered")},
        sum(record["lost"] for record in records if record["type"] == "LOST"),
        made[0],
    )
