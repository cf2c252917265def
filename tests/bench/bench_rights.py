"""Compare the cost of a flow with the sandbox and with --no-sandbox, in turn.

Run as root: python tests/bench/bench_rights.py. One program makes loopback flows at full speed to its own server, so
that both ends are looked up. Counts the CPU time of nfct_fast and of its helper processes.
"""

import statistics
import sys
from pathlib import Path

from support_bench import NFCT_FAST, Program, compiled, count_lines, cpu_ns, rounds, space, table

FLOWS = 10_000
MODES = ("auto", "diag", "proc")
ENDS = {"sandbox": [], "--no-sandbox": ["--no-sandbox"]}


def spent(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in lists for child in path.read_text().split()]
    return sum(map(cpu_ns, [pid, *children]))


def cost(here, senders, mode, kind, options):
    """Return the CPU time per flow in us, and the number of flows reported."""
    here.empty()
    output = here.directory / "output"
    with open(output, "wb") as stdout:
        program = Program(here, [*NFCT_FAST, "--attribution", mode, "-p", kind, *options], stdout)
        try:
            before = spent(program.pid)
            here.run(senders, "ports", kind, FLOWS)
            here.await_empty_queues()
            used = spent(program.pid) - before
        finally:
            program.end()
    reported = count_lines(output)
    return used / max(reported, 1) / 1000, reported


def main():
    rows = []
    with space() as here:
        senders = compiled("senders", here.directory, "-pthread")
        for mode in MODES:
            for kind in ("udp", "tcp"):
                found = {end: [] for end in ENDS}
                for _ in range(rounds()):
                    for end, options in ENDS.items():
                        found[end].append(cost(here, senders, mode, kind, options))
                costs = {end: statistics.median(one for one, _ in runs) for end, runs in found.items()}
                rows.append(
                    [
                        f"{mode}, {kind}",
                        *(f"{costs[end]:.1f}" for end in ENDS),
                        f"{costs['sandbox'] / costs['--no-sandbox']:.2f}",
                        min(reported for runs in found.values() for _, reported in runs),
                    ]
                )
    table(
        "CPU time per flow between two local processes, us",
        ["attribution, protocol", *ENDS, "ratio", "flows reported, at least"],
        rows,
    )


if __name__ == "__main__":
    sys.exit(main())
