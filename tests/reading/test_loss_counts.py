"""One thread counts losses, and the count is called exact only where it is."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from support.child import Child
from support.cli import Program, inside, until
from support.overruns import listening, read_until_quiet


def test_whoever_asks_for_the_counts_does_not_change_them(tracked, within, flood):
    """Asked by other threads all the time, while the buffer overruns and overruns."""
    with within(), listening(flood, recover=False, rcvbuf=4096, rcvbuf_limit=4096) as conntrack:
        stop, seen = threading.Event(), []

        def ask():
            before = 0
            while not stop.is_set():
                dropped = conntrack.stats().dropped
                seen.append(0 <= dropped - before < 1 << 31)
                before = dropped

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        made, flows = 0, []
        for number in range(1, 11):
            made += flood(20_000, 30_000, address=f"10.99.{number}.1")
            flows += conntrack.read(timeout=0)
        flows += read_until_quiet(conntrack)
        stop.set()
        for thread in threads:
            thread.join()
        stats = conntrack.stats()
    assert stats.overruns > 10 and len(seen) > 100
    assert all(seen), "the count went back, or up by 2^32"
    assert len(flows) + stats.lost == made


def seeded(program, flood):
    """It has read the table: what it finds there at its start counts as known."""
    flood(1, 0, address="10.99.200.1")
    program.await_lines(1)
    return 1


@pytest.mark.parametrize("times", [1, 3])
def test_events_there_was_no_memory_for(tracked, flood, faults, times):
    """In no count of the kernel's: their flows are looked for in the table, and what is missing is missing at least."""
    environment = faults("nomem", times=times, after=2)
    with Program(tracked, "-p", "ipv4/udp", "--json", "--attribution", "off", env=environment) as program:
        made = seeded(program, flood) + sum(flood(1_000, 0, address=f"10.99.{number}.1") for number in range(1, 11))
        program.await_all_read()
        until(lambda: sum('"NEW"' in line for line in program.lines) == made)
        assert program.end()[0] == 0
    records = [json.loads(line) for line in program.lines]
    recovered = [record for record in records if record.get("recovered")]
    told = [record for record in records if record["type"] == "LOST"]
    assert recovered and told and all(record["at_least"] is True for record in told)
    assert sum(record["lost"] for record in told) == 0
    assert 0 < sum(int(line.split()[1]) for line in program.complaints if "recovered" in line) <= len(recovered)
    assert any("events lost or more" in line for line in program.complaints)


def test_events_there_was_no_memory_for_and_that_are_gone(tracked, flood, faults):
    environment = faults("nomem", times=2, after=2)
    with Program(tracked, "-p", "ipv4/udp", "--json", "--attribution", "off", env=environment) as program:
        made = seeded(program, flood)
        for number in range(1, 11):
            program.stop()
            made += flood(1_000, 0, address=f"10.99.{number}.1")
            subprocess.run(
                ["nsenter", f"--net=/run/netns/{tracked}", "conntrack", "-F"], check=True, capture_output=True
            )
            os.kill(program.pid, signal.SIGCONT)
            program.await_all_read()
        assert program.end()[0] == 0
    records = [json.loads(line) for line in program.lines]
    told = [record for record in records if record["type"] == "LOST"]
    written = sum(record["type"] == "NEW" for record in records)
    assert 2 <= sum(record["lost"] for record in told) <= made - written
    assert all(record["at_least"] is True for record in told)


COUNTING = """
import sys, time
from nfct_fast import Conntrack, Lost

options = dict(protocol="ipv4/udp", attribution="off", probe=False, recover=False, on_loss="yield")
with Conntrack(rcvbuf=4096, rcvbuf_limit=4096, **options) as conntrack:
    print("ready", flush=True)
    flows, lost, overruns, changed = [], [], 0, time.monotonic()
    while time.monotonic() < changed + 3:
        for item in conntrack.read(timeout=0.1):
            (lost if isinstance(item, Lost) else flows).append(item)
            changed = time.monotonic()
        if overruns == 0 and conntrack.stats().overruns:
            overruns = 1
            print("overrun", flush=True)
    print(len(flows) + sum(item.count for item in lost), conntrack.stats().unallocated)
    print(len(flows), len({flow.original for flow in flows}), lost, conntrack.stats(), file=sys.stderr)
"""


def entries(netns):
    """How many entries the conntrack table has, and those that no flood made: why a count is wrong."""
    listed = subprocess.run(inside(netns, ["conntrack", "-L"]), capture_output=True, text=True).stdout.splitlines()
    return len(listed), [line for line in listed if "src=10.99.0.1 dst=10.99." not in line]


def test_an_overrun_just_after_another_is_counted_once(tracked, flood, faults):
    """Its drops are counted together with the last ones of the other, before it is reported."""
    command = inside(tracked, [sys.executable, "-c", COUNTING])
    with Child(command, env=faults("late"), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        made = flood(1_000, 0)
        assert child.stdout.readline() == "overrun\n"
        made += flood(50, 0, address="10.99.2.1")
        assert child.stdout.read() == f"{made} 0\n", entries(tracked)


def test_an_overrun_whose_drops_are_counted_late(tracked, flood, faults):
    """The queue is empty before the kernel has counted them: they are no events without memory."""
    command = inside(tracked, [sys.executable, "-c", COUNTING])
    with Child(command, env=faults("uncounted"), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)  # so that there is one overrun
        made = flood(1_000, 0)
        child.send_signal(signal.SIGCONT)
        assert child.stdout.readline() == "overrun\n"
        assert child.stdout.read() == f"{made} 0\n", entries(tracked)


def test_what_was_dropped_is_exact(tracked, flood):
    with Program(
        tracked, "-p", "ipv4/udp", "--json", "--attribution", "off", "--rcvbuf", "64K", "--rcvbuf-max", "64K"
    ) as program:
        program.stop()
        made = flood(3_000, 0)
        subprocess.run(["nsenter", f"--net=/run/netns/{tracked}", "conntrack", "-F"], check=True, capture_output=True)
        os.kill(program.pid, signal.SIGCONT)
        until(lambda: any("LOST" in line for line in program.lines))
        assert program.end()[0] == 0
    records = [json.loads(line) for line in program.lines]
    told = [record for record in records if record["type"] == "LOST"]
    assert sum(record["lost"] for record in told) + sum(record["type"] == "NEW" for record in records) == made
    assert not any("at_least" in record for record in told)
