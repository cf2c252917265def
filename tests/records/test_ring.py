"""The ring between the reader and its taker is bounded and in order, and the reader waits for room in it."""

import os
import subprocess
import threading
import time

import pytest

from nfct_fast.conntrack import Conntrack
from support.cli import Program, until
from support.flows import collect_count
from support.stopwatch import Stopwatch

CAPACITY = 32768
ROOMY = {"attribution": "off", "protocol": "ipv4/udp", "probe": False}


def is_any(flow):
    return True


def ports(flows):
    return [flow.dport for flow in flows]


def test_a_full_ring_keeps_order_and_loses_nothing(tracked, within, flood):
    with within(), Conntrack(**ROOMY) as conntrack:
        made = flood(50_000, 0)
        until(lambda: conntrack.stats().max_queued == CAPACITY, what="a full ring")
        flows = collect_count(conntrack, is_any, made)
        stats = conntrack.stats()
    assert ports(flows) == [1024 + i for i in range(50_000)] and made == 50_000
    assert (stats.events, stats.dropped, stats.lost, stats.max_queued) == (made, 0, 0, CAPACITY)


def test_flows_are_taken_while_more_come(tracked, within, flood):
    found = []
    with within(), Conntrack(**ROOMY) as conntrack:
        taker = threading.Thread(target=lambda: found.extend(collect_count(conntrack, is_any, 60_000)))
        taker.start()
        made = flood(60_000, 0)
        taker.join()
    assert made == 60_000 and ports(found) == [1024 + i for i in range(60_000)]


def test_what_was_read_is_still_there_after_stop(tracked, within, flood):
    with within(), Conntrack(**ROOMY) as conntrack:
        made = flood(2_000, 0)
        until(lambda: conntrack.stats().events == made)
        conntrack.stop()
        assert ports(conntrack) == [1024 + i for i in range(made)]


def test_stop_ends_a_reader_that_waits_for_room(tracked, within, flood):
    with within(), Conntrack(**ROOMY) as conntrack:
        flood(50_000, 0)
        until(lambda: conntrack.stats().max_queued == CAPACITY, what="a full ring")
        with Stopwatch() as watch:
            conntrack.stop()
        assert watch.seconds < 2
        assert len(list(conntrack)) >= CAPACITY


def test_records_nobody_takes_are_given_back(tracked, within, flood):
    # With owners: each record holds a reference to a process.
    for _ in range(3):
        with within(), Conntrack(protocol="ipv4/udp", probe=False) as conntrack:
            made = flood(500, 0)
            until(lambda: conntrack.stats().events == made)
        with pytest.raises(ValueError):
            conntrack.read(timeout=0)


def test_a_batch_outlives_what_was_taken_from_it(tracked, within, flood):
    with within(), Conntrack(**ROOMY) as conntrack:
        flood(3_000, 0)
        first = until(lambda: conntrack.read(timeout=0.1))[0]
        text = repr(first)
        flood(3_000, 0, address="10.99.7.7")
        until(lambda: conntrack.stats().events == 6_000)
        conntrack.read(timeout=0)
    assert repr(first) == text


def test_output_that_blocks_loses_no_line(tracked, flood):
    """The pipe holds a few hundred lines, the ring 32,768; the receive buffer holds the rest meanwhile."""
    read_end, write_end = os.pipe()
    with Program(tracked, "-p", "ipv4/udp", "--attribution", "off", "-f", "{ev.dport}", stdout=write_end) as program:
        os.close(write_end)
        made = flood(50_000, 0)
        time.sleep(0.3)
        reader = subprocess.Popen(["cat"], stdin=read_end, stdout=subprocess.PIPE)
        os.close(read_end)
        data = []
        thread = threading.Thread(target=lambda: data.append(reader.stdout.read()))
        thread.start()
        program.await_all_read()
        time.sleep(0.3)
        assert program.end()[0] == 0
        thread.join(10)
        reader.wait()
        reader.stdout.close()
    assert [int(line) for line in data[0].split()] == [1024 + i for i in range(made)] and made == 50_000
    assert program.complaints == []
