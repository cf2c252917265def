"""Measure what a refused flow costs by where it is refused: as root, python tests/bench/bench_filter.py

Makes 100,000 flows at 40,000/s in each of five rounds (BENCH_ROUNDS), none of which is wanted, and prints the medians
of the program's CPU time for all of them, beside that for printing them all.
"""

import statistics

from support_bench import NFCT_FAST, Program, rounds, space, table

FLOWS, RATE = 100_000, 40_000
CASES = {
    "none: all are printed": [],
    "in the kernel: by its port": ["dport", "1"],
    "in the kernel: by 1,000 networks": ["src " + ",".join(f"172.{n // 250}.{n % 250}.0/24" for n in range(1000))],
    "in the kernel, by a part: a port and a unit": ["dport 1 and unit sshd"],
    "before attribution: by its mark": ["mark", "7"],
    "after attribution: by its user": ["uid", "12345"],
    "after attribution: by a pattern of the command line": ["cmdline '*--secret?=*'"],
}


def spent(place, words):
    place.empty()
    with open(place.directory / "output", "wb") as output:
        program = Program(place, [*NFCT_FAST, *words], output)
        try:
            made = place.flood(FLOWS, RATE)
            place.await_empty_queues()
            used = program.spent()
        finally:
            program.end()
    return used * FLOWS / made


def main():
    with space() as place:
        runs = {name: [] for name in CASES}
        for _ in range(rounds()):
            for name, words in CASES.items():
                runs[name].append(spent(place, words))
    table(
        f"CPU time for {FLOWS:,} refused flows, medians of {rounds()}",
        ["refused", "ms", "µs a flow"],
        [
            [name, f"{statistics.median(times) * 1e3:.1f}", f"{statistics.median(times) * 1e6 / FLOWS:.2f}"]
            for name, times in runs.items()
        ],
    )


if __name__ == "__main__":
    main()
