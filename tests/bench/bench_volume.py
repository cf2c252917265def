"""Compare the events per CPU second of nfct_fast and its peers: as root, python tests/bench/bench_volume.py

Makes 200,000 flows at 40,000/s in each of five rounds (BENCH_ROUNDS), and prints medians. CPU time is that of the whole
process without its start-up. Output goes to a file.
"""

import sys

from support_bench import (
    CONNTRACK,
    HERE,
    NFCT_FAST,
    RCVBUF,
    compiled,
    count_lines,
    first_number,
    measure,
    medians,
    rounds,
    space,
    table,
)

FLOWS, RATE = 200_000, 40_000


def cases(limit):
    return {
        "conntrack -E -e NEW": (CONNTRACK, count_lines),
        "limit: receive, in C": ([limit, "raw", RCVBUF], first_number),
        "limit: receive and decode, in C": ([limit, "decode", RCVBUF], first_number),
        "nfct_fast, text": (NFCT_FAST, count_lines),
        "nfct_fast, text, no owners": ([*NFCT_FAST, "--attribution", "off"], count_lines),
        "nfct_fast --json": ([*NFCT_FAST, "--json"], count_lines),
        "nfct_fast --json, no owners": ([*NFCT_FAST, "--json", "--attribution", "off"], count_lines),
        "Conntrack in Python, no owners": ([sys.executable, HERE / "iterate.py", "off"], first_number),
        "Conntrack in Python": ([sys.executable, HERE / "iterate.py", "auto"], first_number),
    }


def main(only=()):
    with space() as place:
        limit = compiled("limit", place.directory, "-lnetfilter_conntrack")
        chosen = {name: case for name, case in cases(limit).items() if not only or any(word in name for word in only)}
        runs = {name: [] for name in chosen}
        for _ in range(rounds()):
            for name, (command, counted) in chosen.items():
                runs[name].append(measure(place, command, FLOWS, RATE, counted=counted))
    results = {name: medians(these) for name, these in runs.items()}

    def ratio(name, peer):
        return f"{results[name].per_second / results[peer].per_second:.2f}" if peer in results else ""

    table(
        f"{FLOWS:,} new UDP flows at {RATE:,}/s, medians of {rounds()}",
        ["program", "events per CPU s", "x conntrack -E", "x receive+decode in C", "lost (most)", "peak MiB"],
        [
            [
                name,
                f"{one.per_second:,.0f}",
                ratio(name, "conntrack -E -e NEW"),
                ratio(name, "limit: receive and decode, in C"),
                f"{one.lost:,.0f} ({max(run.lost for run in runs[name]):,})",
                f"{one.peak:.0f}",
            ]
            for name, one in results.items()
        ],
    )
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
