"""Measure how long it takes to find flows in a large store: python tests/bench/bench_find.py [DIRECTORY]

Without DIRECTORY it makes a store of FIND_FLOWS flows (ten million) in 200 hours, which takes several minutes and 4 GB,
and removes it again; many_flows.py makes one that stays. Looks for addresses and Community IDs that occur, each within
one day, opening all files anew each time, and prints medians and 99th percentiles. Needs no root.
"""

import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

from many_flows import HOUR_NS, make
from nfct_fast import Store
from nfct_fast.store.schema import open_file, store_files
from support_bench import table

COUNT, PROGRAMS = 300, 30
DAY_NS = 24 * HOUR_NS


@contextlib.contextmanager
def stored():
    if sys.argv[1:] and os.path.isdir(sys.argv[-1]):
        yield sys.argv[-1]
        return
    with tempfile.TemporaryDirectory(prefix="nfct-fast-bench-") as directory:
        make(directory, int(os.environ.get("FIND_FLOWS", "10000000")))
        yield directory


def examples(directory, chance):
    """For each of COUNT times: an address, a Community ID, and the beginning of a day in which both occur."""
    files = store_files(directory)
    found = []
    while len(found) < COUNT:
        file = chance.choice(files)
        with contextlib.closing(open_file(file.path)) as connection:
            # Any address that is there, however many flows it has.
            [low] = connection.execute("SELECT min(dst) FROM flow WHERE dst >= ?", [chance.randbytes(4)]).fetchone()
            [moment] = connection.execute("SELECT time FROM flow WHERE dst = ? LIMIT 1", [low]).fetchone() or [None]
        if moment is None:
            continue
        since = moment - chance.randrange(DAY_NS)
        with Store(directory) as store:
            [flow] = store.find(f"dst {'.'.join(map(str, low))}", since=moment, until=moment + 1, limit=1)
        found.append((flow.dst, flow.community_id, since))
    return found


def measured(directory, arguments):
    times, spent, counts = [], [], []
    for words in arguments:
        began, used = time.perf_counter(), time.process_time()
        with Store(directory) as store:
            counts.append(len(list(store.find(**words))))
        times.append(time.perf_counter() - began)
        spent.append(time.process_time() - used)
    assert all(counts)
    return times, spent, counts


def program(directory, words, since):
    command = [sys.executable, "-P", "-m", "nfct_fast", "find", "--store", directory]
    command += ["--since", f"@{since // 10**9}", "--until", f"@{(since + DAY_NS) // 10**9 + 1}", *words]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def both(times):
    """The median and the 99th percentile, in ms."""
    milliseconds = sorted([1000 * one for one in times])
    percentile = milliseconds[min(len(milliseconds) - 1, int(len(milliseconds) * 0.99))]
    return f"{statistics.median(milliseconds):.1f}; {percentile:.1f}"


def row(what, times, spent=None, counts=None):
    flows = f"{statistics.median(counts):.0f} ({max(counts):,})" if counts else ""
    return [what, both(times), both(spent) if spent else "", flows]


def main():
    with stored() as directory:
        files = store_files(directory)
        size = sum(os.stat(file.path).st_size for file in files)
        total = 0
        for file in files:
            with contextlib.closing(open_file(file.path)) as connection:
                total += connection.execute("SELECT count(*) FROM flow").fetchone()[0]
        found = examples(directory, random.Random(7))
        day = [dict(since=since, until=since + DAY_NS) for *_, since in found]
        rows = [
            row("an address", *measured(directory, [w | {"filter": f"host {a}"} for (a, *_), w in zip(found, day)])),
            row("a Community ID", *measured(directory, [w | {"community_id": i} for (_, i, _), w in zip(found, day)])),
            row("the program: an address", [program(directory, ["host", a], s) for a, _, s in found[:PROGRAMS]]),
            row(
                "the program: a Community ID",
                [program(directory, ["--community-id", i], s) for _, i, s in found[:PROGRAMS]],
            ),
        ]
    table(
        f"Finding within a day of {total:,} flows in {len(files)} files, {size / total:.0f} bytes each",
        ["looked for", "ms: median; 99th percentile", "CPU ms: likewise", "flows found: median (most)"],
        rows,
    )


if __name__ == "__main__":
    main()
