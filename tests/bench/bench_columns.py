"""Compare flows as columns with flows as objects and with the command line.

Run as root: python tests/bench/bench_columns.py [live] [replayed] [recorded] [memory]

Rows per CPU second live, with owners, as bench_volume.py measures; of a recording; of messages that are decoded and
made into rows over and over in one process, without the search for owners; and the memory of each.
"""

import json
import statistics
import sys
import time

from nfct_fast import Conntrack
from nfct_fast.testing.batch_hooks import Rows, make_process, replay
from support_bench import (
    HERE,
    NFCT_FAST,
    ROOT,
    count_lines,
    first_number,
    measure,
    medians,
    record_flood,
    rounds,
    space,
    table,
)

FLOWS, RATE = 200_000, 40_000
REPLAYED = 2_000_000
LIVE = {
    "nfct_fast, text": (NFCT_FAST, count_lines),
    "nfct_fast --json": ([*NFCT_FAST, "--json"], count_lines),
    "Conntrack, for flow in conntrack": ([sys.executable, HERE / "iterate.py", "auto"], first_number),
    "Conntrack, for batch in batches()": ([sys.executable, HERE / "iterate.py", "auto", "batches"], first_number),
    "Conntrack, async for batch in batches()": ([sys.executable, HERE / "iterate.py", "auto", "tasks"], first_number),
}


def live():
    runs = {name: [] for name in LIVE}
    with space() as place:
        for _ in range(rounds()):
            for name, (command, counted) in LIVE.items():
                runs[name].append(measure(place, command, FLOWS, RATE, counted=counted))
    results = {name: medians(these) for name, these in runs.items()}
    table(
        f"{FLOWS:,} new UDP flows at {RATE:,}/s with their owners, medians of {rounds()}",
        ["taken by", "rows per CPU s", "lost", "peak MiB"],
        [[name, f"{one.per_second:,.0f}", f"{one.lost:,.0f}", f"{one.peak:.0f}"] for name, one in results.items()],
    )


def replayed():
    """A recording of a flood, read from its file: decoded and filtered as live, with the owners of then."""
    with space() as place:
        path = place.directory / "flood.rec"
        record_flood(place, path, FLOWS, RATE)

        def read(way):
            with Conntrack(replay=str(path)) as conntrack:
                return sum(map(len, conntrack.batches())) if way == "batches()" else sum(1 for _ in conntrack)

        ways = ("batches()", "for flow in conntrack")
        results = {way: [timed(lambda: read(way)) for _ in range(rounds())] for way in ways}
    table(
        f"A recording of {FLOWS:,} flows with their owners, medians of {rounds()}",
        ["taken by", "rows per CPU s"],
        [[way, f"{statistics.median(these):,.0f}"] for way, these in results.items()],
    )


def messages():
    saved = json.loads((ROOT / "tests/support/recorded_events.json").read_text())["messages"]
    return [bytes.fromhex(one) for one in saved]


def processes(count):
    return [
        make_process(i, comm=b"curl", exe=b"/usr/bin/curl", cmdline=b"curl\0-s\0https://example.net/%d" % i,
                     cgroup=b"/system.slice/fetch-%d.service" % (i % 50), uid=1000)
        for i in range(1, count + 1)
    ]  # fmt: skip


def timed(work):
    began = time.process_time()
    done = work()
    return done / (time.process_time() - began)


def objects(chosen, owners):
    def work():
        rows, done = Rows(), 0
        while done < REPLAYED // 4:
            done += rows.fill(chosen * 300, owners, owners[::-1])
            for flow in rows.flows():
                assert flow.dport != flow.owner.pid is not None
        return done

    return work


def recorded():
    everything = messages()
    cases = {}
    for what, chosen, count in (
        ("IPv4 TCP and UDP, 1 process", [one for one in everything if one[16] == 2], 1),
        ("the same, 1,000 processes", [one for one in everything if one[16] == 2], 1_000),
        ("IPv6 TCP and UDP, 1 process", [one for one in everything if one[16] == 10], 1),
    ):
        owners = processes(count)
        cases[f"{what}: decoded only"] = lambda c=chosen, o=owners: replay(c, o, o, REPLAYED, columns=False)[0]
        cases[f"{what}: batches"] = lambda c=chosen, o=owners: replay(c, o, o, REPLAYED)[0]
        cases[f"{what}: Flow objects, two attributes read"] = objects(chosen, owners)
    results = {name: [] for name in cases}
    for _ in range(rounds()):
        for name, work in cases.items():
            results[name].append(timed(work))
    table(
        f"Recorded events, decoded, with an owner and a peer each, medians of {rounds()}",
        ["made into", "rows per CPU s"],
        [[name, f"{statistics.median(these):,.0f}"] for name, these in results.items()],
    )


def memory():
    chosen = [one for one in messages() if one[16] == 2]
    owners, rows = processes(1_000), Rows()
    rows.fill(chosen * (30_000 // len(chosen)), owners, owners)
    [flow, *_] = rows.flows()
    both = sum(map(sys.getsizeof, (flow, flow.owner, flow.peer)))
    count = rows.fill(chosen * (30_000 // len(chosen)), owners, owners)
    [batch] = rows.batches()
    table(
        "Memory, beside the names of the processes that rows and objects share",
        ["of", "bytes"],
        [
            ["a row of a batch", f"{batch.nbytes / count:,.0f}"],
            ["a Flow", f"{sys.getsizeof(flow):,}"],
            [
                "a Flow whose owner and peer were asked for",
                f"{both:,}",
            ],
        ],
    )


def main(only=()):
    for part in (live, replayed, recorded, memory):
        if not only or part.__name__ in only:
            part()


if __name__ == "__main__":
    main(sys.argv[1:])
