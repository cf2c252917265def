"""Measure what nfct_fast adds to every start of a program on the host, and whether it knows all programs.

Run as root: python tests/bench/bench_spawn.py. First, in pairs without and with nfct_fast, the time of fork+exec+exit
of a static program and of fork+exit, with one and two spawners; the share of the tracepoints in it, as the kernel
measures it (kernel.bpf_stats_enabled); and nfct_fast's CPU time. Then rounds of 1,000 programs that send one datagram
and exit: how many are reported with their own command line, in the initial network namespace and in another, with one
and eight spawners, and with busy processors.
"""

import collections
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

from nfct_fast import Conntrack
from support_bench import NFCT_FAST, Program, compiled, cpu_ns, rounds, space, table

SPAWNS, MANY = 400, 8000
SETTLED_S = 2  # without flows, nfct_fast processes the kernel's events once a second
PAIRS = 12  # in each round, as results differ by some 10 us from one to the next
SHORT = 1000
# A tuple that is used again within conntrack's timeout would not be a new flow.
_first_ports = itertools.cycle(range(2000, 32000, SHORT))


def timed(spawners, *command):
    """Return the us of one spawn.

    Each spawner is bound to one processor: fork+exit takes 70 or 115 us, depending on where the child runs.
    """
    processors = itertools.cycle(sorted(os.sched_getaffinity(0), reverse=True))
    running = [
        subprocess.Popen(
            ["taskset", "-c", str(next(processors)), *map(str, command)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(spawners)
    ]
    return statistics.mean(float(one.communicate()[0]) for one in running)


def tracepoints():
    """Return the ns spent in nfct_fast's tracing programs, and the number of their calls, as a Counter."""
    command = ["bpftool", "-j", "prog", "show"]
    found = collections.Counter()
    for one in json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout):
        if one["type"] == "tracing" and one.get("name") == "nfct_owners":
            found["ns"] += one.get("run_time_ns", 0)
            found["calls"] += one.get("run_cnt", 0)
    return found


def price(kind, spawners, command):
    pairs = []
    for number in range(PAIRS * rounds()):
        for on in (number % 2, 1 - number % 2):
            with Conntrack(attribution="bpf", probe=False) if on else contextlib.nullcontext():
                time.sleep(0.05)
                pairs.append((number, on, timed(spawners, *command)))
    off, on = ([took for _, which, took in sorted(pairs) if which == wanted] for wanted in (0, 1))
    changes = [b - a for a, b in zip(off, on)]
    low, change, high = statistics.quantiles(changes, n=4)
    error = 1.57 * (high - low) / len(changes) ** 0.5  # of a median, as in the notches of box plots
    before = statistics.median(off)
    return [
        kind,
        spawners,
        f"{before:.1f}",
        f"{statistics.median(on):.1f}",
        f"{change:+.1f}",
        f"{error:.1f}",
        f"{change / before:+.1%}",
    ]


def shares(place, command):
    """Return the us of one spawn that are spent in the tracepoints, and the CPU us that nfct_fast uses for it."""
    subprocess.run(["sysctl", "-qw", "kernel.bpf_stats_enabled=1"], check=True)
    try:
        program = Program(place, [*NFCT_FAST, "-p", "udp"], subprocess.DEVNULL)
        before, used = tracepoints(), cpu_ns(program.pid)
        timed(1, *command)
        time.sleep(SETTLED_S)
        after, used = tracepoints(), cpu_ns(program.pid) - used
        program.process.send_signal(signal.SIGTERM)
        program.process.wait()
    finally:
        subprocess.run(["sysctl", "-qw", "kernel.bpf_stats_enabled=0"], check=True)
    return (after["ns"] - before["ns"]) / 1e3 / MANY, used / 1e3 / MANY


class Initial:
    """The present network namespace, in which nfct_fast turns on tracking while it runs."""

    options = ["--track"]

    def start(self, *command, **options):
        return subprocess.Popen([*map(str, command)], **options)


@contextlib.contextmanager
def busy(count):
    """Run `count` busy loops."""
    loops = [subprocess.Popen(["timeout", "600", "sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()
            loop.wait()


def named(place, directory, spawners):
    """Run SHORT programs. Return how many were reported with the right command line, and with a wrong one."""
    each, base = SHORT // spawners, next(_first_ports)
    loop = f'for ((i = 0; i < {each}; i++)); do bash -c "echo x >/dev/udp/127.0.0.1/$(($1 + i))" $1 $i; done'
    with open(directory / "lines", "w+") as out:
        options = ["-p", "ipv4/udp", "-f", "{ev.dport} {info.cmdline}", *getattr(place, "options", [])]
        program = Program(place, [*NFCT_FAST, *options], out)
        shells = [place.start("bash", "-c", loop, "spawner", base + n * each) for n in range(spawners)]
        for shell in shells:
            shell.wait()
        program.process.send_signal(signal.SIGTERM)  # it still writes the events that wait in its sockets
        program.process.wait()
        out.seek(0)
        lines = dict(line.rstrip("\n").split(" ", 1) for line in out)
    known = wrong = 0
    for n in range(spawners):
        first = base + n * each
        for i in range(each):
            said = lines.get(str(first + i))
            right = said == f"bash -c echo x >/dev/udp/127.0.0.1/{first + i} {first} {i}"
            known += right
            wrong += not right and said not in (None, "[bash]")
    return known, wrong


def main():
    with space() as place:
        spawn = compiled("spawn", place.directory, "-static")
        nothing = place.directory / "nothing"
        subprocess.run(
            ["gcc", "-O2", "-static", "-x", "c", "-o", nothing, "-"], input=b"int main(void) { return 0; }", check=True
        )
        program = [nothing, "an", "argument"]
        table(
            f"The median of {SPAWNS:,} programs in turn; medians of {PAIRS * rounds()} pairs",
            ["what", "spawners", "us without", "us with", "change, us", "+- (95 %)", "change"],
            [
                price("fork+exec+exit, static", 1, [spawn, SPAWNS, *program]),
                price("fork+exec+exit, static", 2, [spawn, SPAWNS, *program]),
                price("fork+exit", 1, [spawn, SPAWNS]),
            ],
        )
        if shutil.which("bpftool"):
            rows = []
            for kind, words in (("fork+exec+exit, static", program), ("fork+exit", [])):
                runs = [shares(place, [spawn, MANY, *words]) for _ in range(rounds())]
                rows.append([kind, *(f"{statistics.median(each):.2f}" for each in zip(*runs))])
            table("Of that, as the kernel measures it", ["what", "tracepoints, us", "nfct_fast's CPU time, us"], rows)
        rows = []
        for where, spawners, loops in itertools.product(("initial", "another"), (1, 8), (0, os.cpu_count())):
            with busy(loops):
                target = Initial() if where == "initial" else place
                results = [named(target, place.directory, spawners) for _ in range(4 * rounds())]
            rows.append(
                [where, spawners, loops, min(known for known, _ in results), max(wrong for _, wrong in results)]
            )
        table(
            f"{SHORT:,} programs that send one datagram and exit, {4 * rounds()} rounds",
            ["network namespace", "spawners", "busy loops", "known (least)", "wrong (most)"],
            rows,
        )


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench: needs root")
    main()
