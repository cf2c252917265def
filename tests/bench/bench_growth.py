"""How the cost of a flow grows with the conntrack table and with the number of sockets: a table and a plot (SVG).

Run as root: python tests/bench/bench_growth.py [directory for growth.svg; default build/bench]. Each size is measured in
every round, in turn; the table grows as far as net.netfilter.nf_conntrack_max allows (it is the host's, and left alone).
"""
import os
import resource
import statistics
import subprocess
import sys
from math import log10
from pathlib import Path

from support_bench import NFCT_FAST, ROOT, Program, rounds, space, table

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
FLOWS, RATE = 40_000, 40_000
EACH = 5_000        # sockets a process: what it may open is limited


def cost(place, options):
    """Microseconds of CPU a flow."""
    with open(os.devnull, "wb") as stdout:
        program = Program(place, [*NFCT_FAST, *options], stdout)
        made = place.flood(FLOWS, RATE, "fresh", "10.99.200.1")
        place.await_empty_queues()
        spent = program.spent()
        program.end()
    return spent / made * 1e6


def fill(place, entries):
    place.empty()
    if entries:
        place.flood(entries, 0, "one", "10.99.1.1")


def by_table(place, sizes):
    found = {size: [] for size in sizes}
    for _ in range(rounds()):
        for size in sizes:
            fill(place, size)
            found[size].append(cost(place, []))
    return {size: statistics.median(values) for size, values in found.items()}


def by_sockets(place, sizes):
    found = {size: [] for size in sizes}
    for _ in range(rounds()):
        for size in sizes:
            place.empty()
            holders = [place.start(sys.executable, "-c", SOCKETS, min(EACH, size), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                       for _ in range(max(1, size // EACH))]
            try:
                for holder in holders:
                    holder.stdout.readline()
                found[size].append(cost(place, []))
            finally:
                for holder in holders:
                    holder.kill()
                    holder.communicate()
    return {size: statistics.median(values) for size, values in found.items()}


def svg(series):
    """Curves over a logarithmic axis; series: {name: {size: microseconds}}."""
    width, height, left, bottom = 640, 360, 60, 50
    sizes = sorted(size for values in series.values() for size in values)
    most = max(max(values.values()) for values in series.values()) * 1.25
    low, high = 100, max(sizes)

    def x(size):
        return left + (width - left - 20) * (log10(size) - log10(low)) / (log10(high) - log10(low))

    def y(value):
        return height - bottom - (height - bottom - 30) * value / most

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<path d="M{left} 30V{height - bottom}H{width - 20}" fill="none" stroke="black"/>',
             f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">entries in the table, or open sockets</text>',
             f'<text x="{left}" y="20">CPU per flow, µs</text>']
    for size in (100, 1_000, 10_000, 100_000, 1_000_000):
        if size <= high:
            parts.append(f'<text x="{x(size):.0f}" y="{height - bottom + 16}" text-anchor="middle">{size:,}</text>')
    for value in range(0, int(most) + 1, max(1, int(most) // 5)):
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.0f}" text-anchor="end">{value}</text>')
    for (name, values), colour in zip(series.items(), ("#1f77b4", "#d62728")):
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
    sizes = [size for size in (1_000, 10_000, 100_000, 200_000, 500_000, 1_000_000) if size + FLOWS <= most]
    with space(udp_timeout=120) as place:
        tables = by_table(place, sizes)
        sockets = by_sockets(place, (200, 2_000, 20_000))
    series = {"conntrack entries": tables, "open sockets": sockets}
    for name, values in series.items():
        least = values[min(values)]
        table(f"Cost of a flow by {name}" + (f" (nf_conntrack_max is {most:,})" if values is tables else ""),
              [name, "CPU µs per flow", "x the least"],
              [[f"{size:,}", f"{value:.2f}", f"{value / least:.2f}"] for size, value in values.items()])
    target.mkdir(parents=True, exist_ok=True)
    (target / "growth.svg").write_text(svg(series))
    print(f"\nplot: {target / 'growth.svg'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
