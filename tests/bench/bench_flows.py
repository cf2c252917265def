"""Measure what one record per flow costs beside the events themselves, and the memory of live flows.

Run as root: python tests/bench/bench_flows.py [cost|memory]...
"""

import os
import statistics
import sys

from support_bench import NFCT_FAST, Program, count_lines, rounds, space, table

COUNT, RATE = 80_000, 20_000
EVENTS, FLOWS = ("-e", "new,destroy"), ("--flows",)


def once(place, options, how):
    """CPU us per flow, from its beginning to its end, and how many records were written."""
    place.empty()
    output = place.directory / "output"
    with open(output, "wb") as stdout:
        program = Program(place, [*NFCT_FAST, "--json", "-p", "ipv4/udp", *options], stdout)
        try:
            made = place.flood(COUNT, RATE, how)
            place.await_empty_queues()
            begun = program.spent()
            place.empty()
            place.await_empty_queues()
            spent = program.spent()
        finally:
            program.end()
    return 1e6 * begun / made, 1e6 * (spent - begun) / made, made, count_lines(output)


def cost(place):
    rows = []
    for how in ("one", "connected"):
        runs = {options: [] for options in (EVENTS, FLOWS)}
        for _ in range(rounds()):
            for options, taken in runs.items():
                taken.append(once(place, options, how))
        for options, taken in runs.items():
            begin, end, made, lines = (statistics.median(values) for values in zip(*taken))
            rows.append(
                [how, " ".join(options), f"{begin:.2f}", f"{end:.2f}", f"{begin + end:.2f}", f"{lines / made:.2f}"]
            )
    table(f"{COUNT:,} UDP flows at {RATE:,}/s, then all ended at once; CPU us per flow, --json",
          ["sockets", "options", "at the beginning", "at the end", "together", "lines per flow"], rows)  # fmt: skip


def memory(place):
    """Live flows of one program, beyond what its notes and buffers take anyway."""
    kept = {}
    for options in (EVENTS, FLOWS):
        place.empty()
        with open(os.devnull, "wb") as stdout:
            program = Program(place, [*NFCT_FAST, "-p", "ipv4/udp", *options], stdout)
            place.flood(20_000, RATE)
            place.await_empty_queues()
            before = program.rss_mib()
            made = place.flood(200_000, RATE, address="10.99.20.1")
            place.await_empty_queues()
            kept[options] = 1024 * 1024 * (program.rss_mib() - before) / made
            program.end()
    rows = [[" ".join(options), f"{each:.0f}"] for options, each in kept.items()]
    table("Resident bytes per live flow, 200,000 flows", ["options", "bytes"], rows)


CASES = {"cost": cost, "memory": memory}


def main(only=()):
    for name, case in CASES.items():
        if not only or name in only:
            with space(udp_timeout=600) as place:
                case(place)


if __name__ == "__main__":
    main(sys.argv[1:])
