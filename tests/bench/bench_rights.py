"""What a flow costs with all that the program gives up, and with --no-sandbox, in turn.

Run as root: python tests/bench/bench_rights.py. Loopback flows, both ends of which are looked for, made by one program at full speed
to a server of its own; CPU time of the program and of the processes it keeps.
"""
import statistics
import sys
from pathlib import Path

from support_bench import NFCT_FAST, Program, compiled, count_lines, cpu_ns, rounds, space, table

FLOWS = 10_000
MODES = ("auto", "diag", "proc")
ENDS = {"sandbox": [], "--no-sandbox": ["--no-sandbox"]}


def spent(pid):
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return sum(map(cpu_ns, [pid, *children]))


def cost(here, senders, mode, kind, options):
    """us of CPU time a flow, and the flows told."""
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
    told = count_lines(output)
    return used / max(told, 1) / 1000, told


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
                rows.append([f"{mode}, {kind}", *(f"{costs[end]:.1f}" for end in ENDS), f"{costs['sandbox'] / costs['--no-sandbox']:.2f}",
                             min(told for runs in found.values() for _, told in runs)])
    table("us of CPU time a flow, both ends of which are here", ["attribution, protocol", *ENDS, "ratio", "flows told, at least"], rows)


if __name__ == "__main__":
    sys.exit(main())
