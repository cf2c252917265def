"""Shared by the benchmarks: a namespace to flood, programs whose CPU time is measured, medians, tables."""

import contextlib
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "src"))

RCVBUF = 64 << 20  # bytes; the default of nfct_fast, which its peers get as well
RULES = "table inet bench { chain seen { type filter hook output priority 0; ct state new; }; }"
QUIET_S = 60
_numbers = itertools.count()


def compiled(name, directory, *flags):
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or sys.exit("bench: no C compiler")
    program = Path(directory) / name
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, HERE / f"{name}.c", *flags], check=True)
    return program


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class WatchedNamespace:
    """A network namespace whose traffic leaves through a veth pair to another one, in which nothing answers."""

    def __init__(self, directory, udp_timeout=30):
        self.name, self.other = (f"nfvol-{os.getpid()}-{next(_numbers)}" for _ in range(2))
        self.flood_program = compiled("flood", directory)
        for name in (self.name, self.other):
            ip("netns", "add", name)
            # The kernel's own ICMPv6 messages would make flows, too.
            subprocess.run(
                [
                    "nsenter",
                    f"--net=/run/netns/{name}",
                    "sysctl",
                    "-qw",
                    "net.ipv6.conf.all.disable_ipv6=1",
                    "net.ipv6.conf.default.disable_ipv6=1",
                ],
                check=True,
            )
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.name, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", self.other)
        ip("-n", self.other, "link", "set", "in", "up")
        ip("-n", self.name, "link", "set", "out", "arp", "off", "up")
        ip("-n", self.name, "addr", "add", "10.99.0.1/16", "dev", "out")
        self.run("nft", RULES)
        self.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_udp_timeout={udp_timeout}")

    def inside(self, *command):
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, command)]

    def outside(self, *command):
        """Return a command that runs in the other namespace."""
        return ["nsenter", f"--net=/run/netns/{self.other}", *map(str, command)]

    def run(self, *command, **options):
        return subprocess.run(self.inside(*command), check=True, capture_output=True, text=True, **options).stdout

    def start(self, *command, **options):
        return subprocess.Popen(self.inside(*command), **options)

    def flood(self, count, rate, how="one", address="10.99.1.1"):
        """Make flows, and return how many were made."""
        return int(self.run(self.flood_program, count, rate, how, address).split()[0])

    def empty(self):
        """Delete all conntrack entries, so that every run starts from the same state."""
        subprocess.run(self.inside("conntrack", "-F"), check=True, capture_output=True)

    def entries(self):
        return int(self.run("sysctl", "-n", "net.netfilter.nf_conntrack_count"))

    def await_empty_queues(self):
        """Wait until no netfilter socket in the namespace has bytes queued, twice in a row."""
        deadline, calm = time.monotonic() + QUIET_S, 0
        while calm < 2:
            rows = [line.split() for line in self.run("cat", "/proc/net/netlink").splitlines()[1:]]
            calm = calm + 1 if all(int(row[4]) == 0 for row in rows if row[1] == "12") else 0
            if time.monotonic() > deadline:
                raise TimeoutError("events are still waiting to be read")
            time.sleep(0.05)

    def close(self):
        for name in (self.name, self.other):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextlib.contextmanager
def space(**options):
    with tempfile.TemporaryDirectory(prefix="nfvol-") as directory:
        made = WatchedNamespace(directory, **options)
        made.directory = Path(directory)
        try:
            yield made
        finally:
            made.close()


def record_flood(place, path, flows, rate):
    """Record a flood in that namespace into a file."""
    from nfct_fast import Conntrack
    from nfct_fast.kernel.netns import resolve

    [netns] = resolve(place.name)
    with netns, netns.entered(), Conntrack(probe=False, record=str(path)) as conntrack:
        made = place.flood(flows, rate)
        for batch in conntrack.batches():
            made -= len(batch)
            if made <= 0:
                break


def cpu_ns(pid):
    """Return the CPU time of all living threads, user and system, in ns."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total


def status_kib(pid, field):
    with open(f"/proc/{pid}/status") as status:
        [value] = [int(line.split()[1]) for line in status if line.startswith(f"{field}:")]
    return value


def catches(pid, number):
    with open(f"/proc/{pid}/status") as status:
        [caught] = [int(line.split()[1], 16) for line in status if line.startswith("SigCgt")]
    return caught >> number - 1 & 1


class Program:
    """A program to measure. It counts as ready once it catches SIGTERM and then uses no more CPU time."""

    def __init__(self, space, command, stdout, env=None):
        self.errors = tempfile.TemporaryFile()
        self.process = space.start(
            *command,
            stdout=stdout,
            stderr=self.errors,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(env or {})},
        )
        self.pid = self.process.pid
        self.space = space
        deadline = time.monotonic() + 20
        while not (self._is_running() and catches(self.pid, signal.SIGTERM)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not start: {self.complaints()}")
            time.sleep(0.02)
        # A conntrack table that exists at the start is read once. That belongs to the start-up, too.
        before = -1
        while (now := cpu_ns(self.pid)) - before > 2_000_000 and time.monotonic() < deadline:
            before = now
            time.sleep(0.4)
        self.before = now

    def _is_running(self):
        with contextlib.suppress(FileNotFoundError):
            return Path(f"/proc/{self.pid}/comm").read_text().strip() != "nsenter"
        return False

    def complaints(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def spent(self):
        """Return the CPU seconds used since the program was ready."""
        return (cpu_ns(self.pid) - self.before) / 1e9

    def peak_mib(self):
        return status_kib(self.pid, "VmHWM") / 1024

    def rss_mib(self):
        return status_kib(self.pid, "VmRSS") / 1024

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()


NFCT_FAST = [sys.executable, "-m", "nfct_fast"]
CONNTRACK = ["conntrack", "-E", "-e", "NEW", "-b", str(RCVBUF)]


class Run(NamedTuple):
    per_second: float  # events per CPU second
    lost: int
    peak: float  # MiB


def measure(space, command, flows, rate, how="one", counted=None, traffic=None):
    """Measure one run of a program during a flood, with its output in a file.

    counted: counts the events in that file. traffic: makes flows in place of the flood, and returns how many.
    """
    space.empty()
    output = space.directory / "output"
    with open(output, "wb") as stdout:
        program = Program(space, command, stdout)
        try:
            made = traffic() if traffic else space.flood(flows, rate, how)
            space.await_empty_queues()
            time.sleep(0.3)
            spent, peak = program.spent(), program.peak_mib()
        finally:
            program.end(signal.SIGTERM)
    got = (counted or count_lines)(output)
    return Run(got / spent, made - got, peak)


def count_lines(path):
    count = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
    return count


def first_number(path):
    return int([line for line in path.read_text().splitlines() if line[:1].isdigit()][-1].split()[0])


def medians(runs):
    return Run(*(statistics.median(values) for values in zip(*runs)))


def rounds():
    return int(os.environ.get("BENCH_ROUNDS", "5"))


def table(title, header, rows):
    """Print the rows under a header as an aligned Markdown table."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("| " + " | ".join(cells) + " |")
    sys.stdout.flush()
