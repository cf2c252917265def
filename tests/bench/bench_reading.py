"""Compare the flows per CPU second of each way to read: as root, python tests/bench/bench_reading.py [PART OF A NAME]

Makes 200,000 flows at 40,000/s in each of five rounds (BENCH_ROUNDS), the ways in turn, and prints medians. CPU time is
that of the whole process without its start-up: the thread that reads events and finds owners has part in it.
"""

import sys

from support_bench import HERE, NFCT_FAST, count_lines, first_number, measure, medians, rounds, space, table

FLOWS, RATE = 200_000, 40_000
WAYS = {
    "for": "flows",
    "async for": "async",
    "read()": "read",
    "for, of batches()": "batches",
    "async for, of batches()": "tasks",
}


def main(only=()):
    cases = {
        **{name: ([sys.executable, HERE / "iterate.py", "auto", way], first_number) for name, way in WAYS.items()},
        "nfct-fast, default line": (NFCT_FAST, count_lines),
        "nfct-fast --json": ([*NFCT_FAST, "--json"], count_lines),
    }
    cases = {name: case for name, case in cases.items() if not only or any(word in name for word in only)}
    runs = {name: [] for name in cases}
    with space() as place:
        for _ in range(rounds()):
            for name, (command, counted) in cases.items():
                runs[name].append(measure(place, command, FLOWS, RATE, counted=counted))
    results = {name: medians(these) for name, these in runs.items()}
    first = next(iter(results.values())).per_second
    table(
        f"{FLOWS:,} new UDP flows with owners at {RATE:,}/s, medians of {rounds()}",
        ["way", "flows per CPU s", f"x {next(iter(results))}", "lost (most)"],
        [
            [name, f"{one.per_second:,.0f}", f"{one.per_second / first:.2f}", max(run.lost for run in runs[name])]
            for name, one in results.items()
        ],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
