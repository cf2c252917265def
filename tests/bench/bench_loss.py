"""Measure how many events are lost, and the memory used.

Run as root: python tests/bench/bench_loss.py [burst|stopped|memory|filter]...
"""

import json
import os
import re
import signal
import statistics
import sys
import time

from support_bench import CONNTRACK, NFCT_FAST, Program, count_lines, rounds, space, table

ENTRY = re.compile(r"dst=(\S+) sport=\d+ dport=(\d+) \[")


def burst(place):
    """Make 300,000 flows as fast as one process can, with default options."""
    rows = []
    for name, command in (("nfct_fast", NFCT_FAST), ("conntrack -E, 64 MiB", CONNTRACK)):
        lost, rates = [], []
        for _ in range(rounds()):
            place.empty()
            output = place.directory / "output"
            with open(output, "wb") as stdout:
                program = Program(place, command, stdout)
                began = time.monotonic()
                made = place.flood(300_000, 0)
                rates.append(made / (time.monotonic() - began))
                place.await_empty_queues()
                time.sleep(0.5)
                program.end()
            lost.append(made - count_lines(output))
        rows.append([name, f"{statistics.median(rates):,.0f}", f"{statistics.median(lost):,.0f}", f"{max(lost):,}"])
    table(f"300,000 flows at full speed, {rounds()} rounds", ["program", "flows/s", "lost, median", "lost, most"], rows)


def listed(place):
    """Return the destinations of the entries in the conntrack table."""
    text = place.run("conntrack", "-L", "-p", "udp")
    return {(match[1], int(match[2])) for match in ENTRY.finditer(text)}


def stopped(place):
    """Make 400,000 flows while the program is stopped. The table holds net.netfilter.nf_conntrack_max entries."""
    most = int(place.run("sysctl", "-n", "net.netfilter.nf_conntrack_max"))
    place.empty()
    output = place.directory / "output"
    with open(output, "wb") as stdout:
        program = Program(place, [*NFCT_FAST, "--json", "-p", "ipv4/udp"], stdout)
        os.kill(program.pid, signal.SIGSTOP)
        made = place.flood(400_000, 40_000)
        living = listed(place)
        os.kill(program.pid, signal.SIGCONT)
        began = time.monotonic()
        place.await_empty_queues()
        time.sleep(1)
        took = time.monotonic() - began - 1
        later = place.flood(1_000, 1_000, address="10.99.200.1")
        time.sleep(1)
        place.await_empty_queues()
        program.end()
    reported, recovered, lost, late, received = 0, set(), 0, 0, set()
    with open(output) as lines:
        for line in lines:
            record = json.loads(line)
            if record["type"] == "LOST":
                lost += record["lost"]
                continue
            original = record["original"]
            reported += 1
            late += original["dst"] == "10.99.200.1"
            (recovered if record.get("recovered") else received).add((original["dst"], original["dport"]))
    missed = living - received
    found = missed & recovered
    table(
        "400,000 flows at 40,000/s while the program was stopped, and 1,000 after it continued",
        ["", "flows"],
        [
            ["made", f"{made + later:,}"],
            ["reported from events", f"{len(received):,}"],
            ["reported as recovered", f"{len(recovered):,}"],
            ["counted as lost", f"{lost:,}"],
            ["neither reported nor counted", made + later - reported - lost],
            ["reported twice", reported - len(received | recovered)],
            [f"in the table when it continued (nf_conntrack_max allows {most:,})", f"{len(living):,}"],
            ["of these not received as events", f"{len(missed):,}"],
            ["of these recovered", f"{len(found):,} ({100 * len(found) / len(missed):.2f} %)"],
            ["of the last 1,000 reported", f"{late:,}"],
            ["seconds to catch up", f"{took:.1f}"],
        ],
    )


def memory(place):
    """Make two million flows, then stay idle."""
    place.empty()
    with open(os.devnull, "wb") as stdout:
        program = Program(place, NFCT_FAST, stdout)
        rows, first = [["at the start", f"{program.rss_mib():.1f}", ""]], 0.0
        for number in range(10):
            place.flood(200_000, 40_000)
            place.await_empty_queues()
            if number in (0, 9):
                first = first or program.rss_mib()
                rows.append(
                    [
                        f"after {200_000 * (number + 1):,} flows",
                        f"{program.rss_mib():.1f}",
                        f"{program.rss_mib() / first:.2f}",
                    ]
                )
            place.empty()
        time.sleep(15)
        rows.append(["after that, idle for 15 s", f"{program.rss_mib():.1f}", f"{program.rss_mib() / first:.2f}"])
        rows.append(["peak", f"{program.peak_mib():.1f}", f"{program.peak_mib() / first:.2f}"])
        program.end()
    table("Resident memory over two million flows", ["", "MiB", "x after the first 200,000"], rows)


def filtered(place):
    """Run with -p udp while TCP connections are begun at 20,000/s."""
    rows = []
    for name, options in (("-p udp", ["-p", "udp"]), ("-p tcp, to compare", ["-p", "tcp"])):
        shares, lines = [], []
        for _ in range(rounds()):
            place.empty()
            output = place.directory / "output"
            with open(output, "wb") as stdout:
                program = Program(place, [*NFCT_FAST, *options], stdout)
                began = time.monotonic()
                made = place.flood(60_000, 20_000, "tcp")
                passed = time.monotonic() - began
                place.await_empty_queues()
                shares.append(program.spent() / passed)
                program.end()
            lines.append(count_lines(output))
        rows.append([name, f"{made:,}", f"{statistics.median(lines):,.0f}", f"{100 * statistics.median(shares):.2f} %"])
    table("60,000 TCP connections begun at 20,000/s", ["option", "made", "lines", "of a core"], rows)


CASES = {"burst": burst, "stopped": stopped, "memory": memory, "filter": filtered}


def main(only=()):
    for name, case in CASES.items():
        if not only or name in only:
            with space() as place:
                case(place)


if __name__ == "__main__":
    main(sys.argv[1:])
