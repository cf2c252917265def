"""Measure how the cost of a flow grows with the conntrack table, open sockets and containers: tables and an SVG plot.

Run as root: python tests/bench/bench_growth.py [directory for growth.svg; default build/bench]. Every round measures
each size in turn. The host's limit of entries per network namespace (net.netfilter.nf_conntrack_max) is not changed: a
million entries are spread over as many namespaces as that takes, and all of them are monitored.
"""

import os
import resource
import statistics
import subprocess
import sys
from contextlib import ExitStack
from math import log10
from pathlib import Path

from support_bench import NFCT_FAST, ROOT, Program, ip, rounds, space, table

SOCKETS = """
import socket, sys, time
kept = []
for i in range(int(sys.argv[1])):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    kept.append(sock)
print("ready", flush=True)
sys.stdin.read()
"""
SIZES = (1_000, 10_000, 100_000, 300_000, 1_000_000)
FLOWS, RATE = 40_000, 40_000
EACH = 5_000  # sockets per process, whose number of descriptors is limited


def cost(place, options=()):
    """Return the CPU time per flow in µs, and the peak memory in MiB."""
    with open(os.devnull, "wb") as stdout:
        program = Program(place, [*NFCT_FAST, *options], stdout)
        made = place.flood(FLOWS, RATE, "fresh", "10.99.200.1")
        place.await_empty_queues()
        spent, peak = program.spent(), program.peak_mib()
        program.end()
    return spent / made * 1e6, peak


def fill(place, entries, number):
    """Fill the conntrack table up to `entries`. number: a different one each time, for fresh addresses."""
    if place.entries() > entries:
        place.empty()
    place.flood(entries - place.entries(), 0, "one", f"10.99.{number % 100 + 1}.1")


def medians(found):
    return {size: tuple(map(statistics.median, zip(*values))) for size, values in found.items()}


def by_table(places, sizes):
    found = {size: [] for size in sizes}
    for _ in range(rounds()):
        for number, size in enumerate(sizes):
            for place in places:
                fill(place, size // len(places), 10 * number)
            found[size].append(cost(places[0], ("--netns", "all") if len(places) > 1 else ()))
    return medians(found)


def by_sockets(place, sizes):
    found = {size: [] for size in sizes}
    for _ in range(rounds()):
        for size in sizes:
            place.empty()
            holders = [
                place.start(
                    sys.executable, "-c", SOCKETS, min(EACH, size), stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                for _ in range(max(1, size // EACH))
            ]
            try:
                for holder in holders:
                    holder.stdout.readline()
                found[size].append(cost(place))
            finally:
                for holder in holders:
                    holder.kill()
                    holder.communicate()
    return medians(found)


def by_namespaces(place, sizes):
    """Measure beside other network namespaces, each with its own address like a container."""
    found = {size: [] for size in sizes}
    for _ in range(rounds()):
        made = 0
        with ExitStack() as stack:
            for size in sizes:
                for number in range(made, size):
                    name = f"{place.name}-{number}"
                    ip("netns", "add", name)
                    stack.callback(ip, "netns", "del", name)
                    ip("-n", name, "addr", "add", f"10.98.0.{number + 1}/32", "dev", "lo")
                made = size
                place.empty()
                found[size].append(cost(place))
    return medians(found)


def svg(series):
    """Draw curves over a logarithmic axis. series: {name: {size: µs}}."""
    width, height, left, bottom = 640, 360, 60, 50
    sizes = sorted(size for values in series.values() for size in values)
    most = max(max(values.values()) for values in series.values()) * 1.25
    low, high = min(sizes), max(sizes)

    def x(size):
        return left + (width - left - 20) * (log10(size) - log10(low)) / (log10(high) - log10(low))

    def y(value):
        return height - bottom - (height - bottom - 30) * value / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left} 30V{height - bottom}H{width - 20}" fill="none" stroke="black"/>',
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">'
        "conntrack entries, open sockets, or other network namespaces</text>",
        f'<text x="{left}" y="20">CPU per flow, µs</text>',
    ]
    for size in (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000):
        if low <= size <= high:
            parts.append(f'<text x="{x(size):.0f}" y="{height - bottom + 16}" text-anchor="middle">{size:,}</text>')
    for value in range(0, int(most) + 1, max(1, int(most) // 5)):
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.0f}" text-anchor="end">{value}</text>')
    for (name, values), colour in zip(series.items(), ("#1f77b4", "#d62728", "#2ca02c")):
        points = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in sorted(values.items()))
        size, value = max(values.items())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in values.items()]
        parts.append(f'<text x="{x(size):.0f}" y="{y(value) - 10:.0f}" text-anchor="end" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main(directory=None):
    target = Path(directory or ROOT / "build" / "bench")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    # As many namespaces as a million entries take.
    count = -(-SIZES[-1] // (most - FLOWS))
    with ExitStack() as stack:
        places = [stack.enter_context(space(udp_timeout=600)) for _ in range(count)]
        tables = by_table(places, SIZES)
    with space() as place:
        sockets = by_sockets(place, (200, 2_000, 20_000))
        namespaces = by_namespaces(place, (1, 10, 100))
    found = {"conntrack entries": tables, "open sockets": sockets, "other network namespaces": namespaces}
    for name, values in found.items():
        first = values[min(values)][0]
        where = f", in {count} network namespaces (nf_conntrack_max is {most:,})" if values is tables else ""
        table(
            f"Cost of a flow by {name}{where}, medians of {rounds()}",
            [name, "CPU µs per flow", "x the first", "peak MiB"],
            [
                [f"{size:,}", f"{value:.2f}", f"{value / first:.2f}", f"{peak:.0f}"]
                for size, (value, peak) in values.items()
            ],
        )
    series = {name: {size: value for size, (value, _) in values.items()} for name, values in found.items()}
    target.mkdir(parents=True, exist_ok=True)
    (target / "growth.svg").write_text(svg(series))
    print(f"\nplot: {target / 'growth.svg'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
