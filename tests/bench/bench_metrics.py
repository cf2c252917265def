"""Measure what --metrics costs: as root, python tests/bench/bench_metrics.py

Logs 100,000 flows at 40,000/s to a file without and with --metrics, in pairs that are begun by each in turn, while the
metrics are scraped once a second. Prints the medians of the CPU time of all the program's processes for a flow, and of
the difference within the pairs. BENCH_ROUNDS: pairs.
"""

import contextlib
import os
import statistics
import subprocess
import sys

from support_bench import NFCT_FAST, Program, cpu_ns, rounds, space, table

FLOWS, RATE = 100_000, 40_000
SCRAPE = """
import time, urllib.request
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=5).read()
    except OSError:
        pass
    time.sleep(1)
"""


def helpers(pid):
    """CPU seconds of the processes that it has forked."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as children:
            found += children.read().split()
    return sum(map(cpu_ns, found)) / 1e9


def spent(place, words):
    place.empty()
    with open(place.directory / "output", "wb") as output, contextlib.ExitStack() as stack:
        program = Program(place, [*NFCT_FAST, "-p", "udp", *words], output)
        try:
            if words:
                scraper = subprocess.Popen(["nsenter", f"--net=/run/netns/{place.name}", sys.executable, "-c", SCRAPE])
                stack.callback(scraper.wait)
                stack.callback(scraper.kill)
            before = helpers(program.pid)
            made = place.flood(FLOWS, RATE)
            place.await_empty_queues()
            used = program.spent() + helpers(program.pid) - before
        finally:
            program.end()
    return used / made * 1e6


def main():
    pairs = []
    with space() as place:
        for number in range(rounds()):
            order = ([], ["--metrics", "9464"]) if number % 2 else (["--metrics", "9464"], [])
            times = {bool(words): spent(place, words) for words in order}
            pairs.append((times[False], times[True]))
    more = [after - before for before, after in pairs]
    rows = [["without", f"{statistics.median([before for before, _ in pairs]):.3f}"]]
    rows += [["with", f"{statistics.median([after for _, after in pairs]):.3f}"]]
    rows += [["more in a pair", f"{statistics.median(more):+.3f} ({min(more):+.3f} to {max(more):+.3f})"]]
    table(f"CPU time for a flow, medians of {len(pairs)} pairs", ["--metrics", "µs"], rows)


if __name__ == "__main__":
    main()
