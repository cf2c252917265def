"""Measure the kinds of traffic that a host meets, compared with `conntrack -E` and the limit in C.

Run as root: python tests/bench/bench_cases.py [CASE]...; all cases take about fifteen minutes. Prints the CPU time of
the whole process without its start-up, and what is lost at 40,000 flows a second, as medians of five rounds
(BENCH_ROUNDS) in which the programs take turns. Output goes to a file. "named": lines that contain a process.
"""

import contextlib
import re
import subprocess
import sys
from typing import NamedTuple

from support_bench import (
    CONNTRACK,
    NFCT_FAST,
    RCVBUF,
    compiled,
    count_lines,
    first_number,
    ip,
    measure,
    medians,
    rounds,
    space,
    table,
)

SERVER, CLIENT, SILENT = "10.97.0.1", "10.97.0.2", "10.98.0.1"
PORT = 2000
NAMED = re.compile(rb" :: \d+ |\"pid\":\d")


class Case(NamedTuple):
    title: str
    traffic: tuple  # arguments of flood or visitors, with COUNT and RATE to be filled in
    flows: int = 80_000
    rate: int = 40_000  # flows a second
    server: tuple = ()  # arguments of `visitors serve`
    options: tuple = ()  # of nfct_fast
    outside: bool = False  # the traffic comes from the other namespace


def flood(how, address="10.99.1.1"):
    return "flood", "COUNT", "RATE", how, address


def packets(kind, to=SERVER, port=PORT, ports=1):
    return "visitors", kind, "COUNT", "RATE", SILENT, to, str(port), str(ports)


def connect(to):
    return "visitors", "connect", "COUNT", "RATE", to, str(PORT), "1"


def serve(kind, ports=1, children=0, others=0):
    return "serve", kind, str(PORT), str(ports), str(children), str(others)


CASES = {
    "out-one": Case("out, one socket", flood("one")),
    "out-udp": Case("out, fresh connected UDP", flood("connected")),
    "out-tcp": Case("out, fresh TCP", flood("tcp")),
    "out-json": Case("out, one socket, --json", flood("one"), options=("--json",)),
    "forwarded": Case("forwarded", packets("udp", "10.99.1.1", 1024, 60_000), outside=True),
    "loopback-udp": Case("loopback UDP, closed ports", flood("one", "127.1.1.1")),
    "loopback-tcp": Case("loopback TCP", connect("127.0.0.1"), 30_000, 10_000, serve("tcp")),
    "scan": Case("scanned, closed TCP ports", packets("syn", port=3000, ports=50_000), outside=True),
    "inbound-udp": Case("inbound UDP to a server", packets("udp"), server=serve("udp"), outside=True),
    "inbound-tcp": Case("inbound TCP, accepted", connect(SERVER), 30_000, 10_000, serve("tcp"), outside=True),
    "inbound-syn": Case("inbound SYN to a listener", packets("syn"), server=serve("tcp"), outside=True),
    "listeners": Case(
        "... one of 1,000 listeners", packets("syn", ports=1000), server=serve("tcp", 1000), outside=True
    ),
    "prefork": Case("... with 1,000 children", packets("syn"), server=serve("tcp", 1, 1000), outside=True),
    "others": Case("... with 20,000 other sockets", packets("syn"), server=serve("tcp", 1, 0, 20_000), outside=True),
}


def wire(place):
    """Add another veth pair, over which traffic comes in from CLIENT, and from SILENT, which never answers."""
    ip("-n", place.name, "link", "add", "served", "type", "veth", "peer", "name", "visitor", "netns", place.other)
    for name, link, address in ((place.name, "served", SERVER), (place.other, "visitor", CLIENT)):
        ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
        ip("-n", name, "link", "set", link, "up")
    ip("-n", place.name, "route", "add", "10.98.0.0/16", "dev", "out")
    ip("-n", place.other, "route", "add", "10.99.0.0/16", "via", SERVER)
    place.run(
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=1",
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.served.rp_filter=0",
        "net.ipv4.conf.out.rp_filter=0",
        "net.core.somaxconn=4096",
    )
    place.visitors_program = compiled("visitors", place.directory)


@contextlib.contextmanager
def served(place, arguments):
    if not arguments:
        yield
        return
    process = place.start(place.visitors_program, *arguments, stdout=subprocess.PIPE)
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"visitors {' '.join(arguments)} did not start")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def make(place, case):
    program, *words = case.traffic
    words = [{"COUNT": str(case.flows), "RATE": str(case.rate)}.get(word, word) for word in words]
    command = [place.flood_program if program == "flood" else place.visitors_program, *words]
    inside = place.outside(*command) if case.outside else place.inside(*command)
    return int(subprocess.run(inside, check=True, capture_output=True, text=True).stdout.split()[0])


class Named:
    """Count lines, and the share of them that contain a process."""

    def __init__(self):
        self.share = 0.0

    def __call__(self, path):
        text = path.read_bytes()
        lines = text.count(b"\n")
        self.share = sum(1 for line in text.splitlines() if NAMED.search(line)) / max(1, lines)
        return lines


def run(place, case, command, counted):
    with served(place, case.server):
        return measure(place, command, case.flows, case.rate, counted=counted, traffic=lambda: make(place, case))


def main(only=()):
    if unknown := set(only) - set(CASES):
        sys.exit(f"bench_cases: unknown case {', '.join(unknown)}; choose from {', '.join(CASES)}")
    rows, single = [], None
    for name, case in CASES.items():
        if only and name not in only:
            continue
        named = Named()
        with space() as place:
            wire(place)
            limit = compiled("limit", place.directory, "-lnetfilter_conntrack")
            programs = {
                "peer": (CONNTRACK, count_lines),
                "limit": ([limit, "decode", RCVBUF], first_number),
                "ours": ([*NFCT_FAST, *case.options], named),
            }
            runs = {program: [] for program in programs}
            for _ in range(rounds()):
                for program, (command, counted) in programs.items():
                    runs[program].append(run(place, case, command, counted))
                    print(f"{case.title}, {program}: {runs[program][-1]}", file=sys.stderr)
        peer, most, ours = (medians(runs[program]) for program in ("peer", "limit", "ours"))
        if name == "inbound-syn":
            single = ours.per_second
        rows.append(
            [
                case.title,
                f"{case.rate:,}",
                f"{1e6 / peer.per_second:.2f}",
                f"{1e6 / most.per_second:.2f}",
                f"{1e6 / ours.per_second:.2f}",
                f"{ours.per_second / peer.per_second:.2f}",
                f"{single / ours.per_second:.2f}" if single and case.title.startswith("...") else "",
                f"{100 * named.share:.1f} %",
                f"{peer.lost:,.0f}",
                f"{ours.lost:,.0f} ({max(one.lost for one in runs['ours']):,})",
                f"{ours.peak:.0f}",
            ]
        )
    table(
        f"New flows of every kind, medians of {rounds()}",
        [
            "case",
            "flows/s",
            "µs, conntrack -E",
            "µs, receive+decode in C",
            "µs, nfct_fast",
            "x conntrack -E",
            "x cost of a single listener",
            "named",
            "conntrack -E lost",
            "lost (most)",
            "peak MiB",
        ],
        rows,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
