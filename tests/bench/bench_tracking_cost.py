"""Measure what the socket notes add to sockets and packets, in interleaved pairs, and the time of a look-up.

Run as root: `python tests/bench/bench_tracking_cost.py [rounds]`. Traffic stays on loopback in a separate namespace.
The BPF programs are attached to one of two cgroups, between which the sender moves every few milliseconds, so that
other load affects both alike. CPU time is measured, so that the time of other processes does not count.
"""

import contextlib
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
from nfct_fast.processes.cgroup_filesystem import find_mount
from nfct_fast.sockets.socket_notes import SocketNotes, netns_cookie

HERE = Path(__file__).resolve().parent
# Mode of senders.c, sockets or packets per turn, what one of them is, and how much more it may take at most.
MODES = [
    ("socket", 2_000, "socket made and closed", None),
    ("udp", 2_000, "unconnected UDP socket", "+1.5 us"),
    ("udp6", 2_000, "the same over IPv6", "+1.5 us"),
    ("cudp", 2_000, "connected UDP socket", "+1.5 us"),
    ("tcp", 500, "TCP connection, both ends", "+3 us"),
    ("tcp6", 500, "the same over IPv6", "+3 us"),
    ("bulk-tcp", 2_000, "64 KiB of a TCP stream", "2 %"),
    ("bulk-cudp", 8_000, "1400 bytes of connected UDP", "2 %"),
    ("bulk-udp", 8_000, "1400 bytes of unconnected UDP", None),
]


def private_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000):  # CLONE_NEWNET
        sys.exit(f"bench: unshare: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def senders(directory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or sys.exit("bench: no C compiler")
    program = f"{directory}/senders"
    subprocess.run([compiler, "-O2", "-Wall", "-pthread", str(HERE / "senders.c"), "-o", program], check=True)
    return program


@contextlib.contextmanager
def cgroups():
    pair = [Path(os.fsdecode(find_mount())) / f"nfct-cost-{os.getpid()}-{name}" for name in ("off", "on")]
    for path in pair:
        path.mkdir()
    try:
        yield pair
    finally:
        for path in pair:
            path.rmdir()


def lookup_times():
    """Return the ns of a look-up with a hot cache (one tuple repeatedly) and a cold one (many tuples)."""
    import socket

    with SocketNotes() as owners:
        sinks = [("127.0.0.1", port) for port in range(20000, 20400)]
        tuples = []
        for _ in range(100):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                for sink in sinks:
                    s.sendto(b"", sink)
                tuples += [(17, "127.0.0.1", s.getsockname()[1], *sink, netns_cookie()) for sink in sinks]
        start = time.perf_counter()
        assert owners.repeat(1_000_000, *tuples[-1]) == 1_000_000
        hot = (time.perf_counter() - start) * 1e3
        bare = time.perf_counter()
        for entry in tuples:
            owners.repeat(0, *entry)
        bare = time.perf_counter() - bare
        start = time.perf_counter()
        found = sum(owners.repeat(1, *entry) for entry in tuples)
        cold = (time.perf_counter() - start - bare) / len(tuples) * 1e9
        assert found == len(tuples), (found, len(tuples))
    return hot, cold


def main():
    rounds = sys.argv[1] if len(sys.argv) > 1 else "60"
    private_namespace()
    print(f"{'what':32} {'off ns':>9} {'more ns':>9} {'more %':>7}  target    quartiles of the differences, ns")
    with tempfile.TemporaryDirectory() as directory, cgroups() as (off, on), SocketNotes(cgroup=str(on)) as owners:
        program = senders(directory)
        for mode, count, what, target in MODES:
            before = owners.counters()["written"]
            command = [program, "cost", mode, str(count), rounds, off, on]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            pairs = [tuple(map(float, line.split())) for line in lines]
            assert mode == "socket" or owners.counters()["written"] > before, "nothing was tracked"
            more = [b - a for a, b in pairs]
            base, extra = statistics.median(a for a, _ in pairs), statistics.median(more)
            low, _, high = statistics.quantiles(more, n=4)
            share = extra / base * 100
            print(
                f"{what:32} {base:9.0f} {extra:+9.0f} {share:+7.1f}  {target or '-':8}  {low:+.0f} .. {high:+.0f}",
                flush=True,
            )
    hot, cold = lookup_times()
    print(f"look-up: {hot:.0f} ns (one tuple repeatedly), {cold:.0f} ns (40,000 tuples in turn, called from Python)")


if __name__ == "__main__":
    main()
