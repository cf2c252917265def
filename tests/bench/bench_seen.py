"""Measure what --first-seen costs for each flow, in pairs of runs with and without it.

Run as root: python tests/bench/bench_seen.py
"""

import os
import statistics

from support_bench import NFCT_FAST, Program, rounds, space, table

COUNT, RATE = 100_000, 40_000
WITHOUT, WITH = (), ("--first-seen",)


def once(place, options, how):
    """CPU us per flow."""
    place.empty()
    with open(os.devnull, "wb") as stdout:
        program = Program(place, [*NFCT_FAST, "-p", "ipv4/udp", *options], stdout)
        try:
            before = program.spent()
            made = place.flood(COUNT, RATE, how)
            place.await_empty_queues()
            spent = program.spent() - before
        finally:
            program.end()
    return 1e6 * spent / made


def cost(place):
    rows = []
    for how in ("one", "connected"):
        pairs = []
        for number in range(2 * rounds()):
            order = (WITHOUT, WITH) if number % 2 else (WITH, WITHOUT)
            taken = {options: once(place, options, how) for options in order}
            pairs.append((taken[WITHOUT], taken[WITH]))
        more = [with_it - without for without, with_it in pairs]
        rows.append([how, f"{statistics.median(pair[0] for pair in pairs):.2f}", f"{statistics.median(more):+.3f}",
                     f"{statistics.stdev(more):.3f}", len(pairs)])  # fmt: skip
    table(f"{COUNT:,} UDP flows at {RATE:,}/s, default line; CPU us per flow, medians of pairs",
          ["sockets", "without", "more with --first-seen", "standard deviation", "pairs"], rows)  # fmt: skip


if __name__ == "__main__":
    with space() as place:
        cost(place)
