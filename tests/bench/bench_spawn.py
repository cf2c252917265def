"""What every start of a program on the host pays, and whether all are known: run as root, python tests/bench/bench_spawn.py

What fork+exec+exit of a static program and fork+exit take, without and with nfct_fast in pairs: one spawner, and two beside
each other; what of it the tracepoints take by the kernel's own clock (kernel.bpf_stats_enabled); nfct_fast's CPU time. Then rounds
of 1,000 programs that send one datagram and end: how many had their own command line; in the initial network namespace and in
another, one and eight spawners at once, and beside busy processors.
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

from support_bench import NFCT_FAST, Program, compiled, cpu_ns, rounds, space, table

from nfct_fast import Conntrack

SPAWNS, MANY = 400, 8000
SETTLED_S = 2       # what the kernel told is taken in once a second where no flows come
PAIRS = 12          # for each of the rounds: one differs from the next by some ten microseconds
SHORT = 1000
_first_ports = itertools.cycle(range(2000, 32000, SHORT))       # a tuple that is used again within the timeout is no new flow


def timed(spawners, *command):
    """us of one spawn. Each spawner has a processor of its own: fork+exit takes 70 or 115 us, as the child is put here or there."""
    processors = itertools.cycle(sorted(os.sched_getaffinity(0), reverse=True))
    running = [subprocess.Popen(["taskset", "-c", str(next(processors)), *map(str, command)], stdout=subprocess.PIPE, text=True)
               for _ in range(spawners)]
    return statistics.mean(float(one.communicate()[0]) for one in running)


def tracepoints():
    """{tag of a tracing program: (ns, calls)} of those that are nfct_fast's."""
    shown = json.loads(subprocess.run(["bpftool", "-j", "prog", "show"], check=True, capture_output=True, text=True).stdout)
    found = collections.Counter()
    for one in shown:
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
    error = 1.57 * (high - low) / len(changes) ** 0.5       # of a median, as box plots have it
    before = statistics.median(off)
    return [kind, spawners, f"{before:.1f}", f"{statistics.median(on):.1f}", f"{change:+.1f}", f"{error:.1f}",
            f"{change / before:+.1%}"]


def shares(place, command):
    """What of one spawn is ours, in us: (of the tracepoints, of nfct_fast's CPU time)."""
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
    """The network namespace we are in, tracked while nfct_fast is there."""

    options = ["--track"]

    def start(self, *command, **options):
        return subprocess.Popen([*map(str, command)], **options)


@contextlib.contextmanager
def busy(count):
    """As many loops that never wait as there are processors, or none."""
    loops = [subprocess.Popen(["timeout", "600", "sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()
            loop.wait()


def named(place, directory, spawners):
    """(known, wrong) of SHORT programs."""
    each, base = SHORT // spawners, next(_first_ports)
    loop = f'for ((i = 0; i < {each}; i++)); do bash -c "echo x >/dev/udp/127.0.0.1/$(($1 + i))" $1 $i; done'
    with open(directory / "lines", "w+") as out:
        program = Program(place, [*NFCT_FAST, "-p", "ipv4/udp", "-f", "{ev.dport} {info.cmdline}", *getattr(place, "options", [])], out)
        shells = [place.start("bash", "-c", loop, "spawner", base + n * each) for n in range(spawners)]
        for shell in shells:
            shell.wait()
        program.process.send_signal(signal.SIGTERM)     # what waits in its sockets is still written
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
        subprocess.run(["gcc", "-O2", "-static", "-x", "c", "-o", nothing, "-"], input=b"int main(void) { return 0; }", check=True)
        program = [nothing, "an", "argument"]
        table(f"{SPAWNS:,} programs one after the other, the median of them; medians of {PAIRS * rounds()} pairs", [
            "what", "spawners", "us without", "us with", "change, us", "+- (95 %)", "change"], [
            price("fork+exec+exit, static", 1, [spawn, SPAWNS, *program]), price("fork+exec+exit, static", 2, [spawn, SPAWNS, *program]),
            price("fork+exit", 1, [spawn, SPAWNS])])
        if shutil.which("bpftool"):
            table("Of that, as the kernel measures it", ["what", "tracepoints, us", "nfct_fast's CPU time, us"], [
                [kind, *(f"{statistics.median(each):.2f}" for each in zip(*(shares(place, [spawn, MANY, *words]) for _ in range(rounds()))))]
                for kind, words in (("fork+exec+exit, static", program), ("fork+exit", []))])
        rows = []
        for where, spawners, loops in itertools.product(("initial", "another"), (1, 8), (0, os.cpu_count())):
            with busy(loops):
                results = [named(Initial() if where == "initial" else place, place.directory, spawners) for _ in range(4 * rounds())]
            rows.append([where, spawners, loops, min(known for known, _ in results), max(wrong for _, wrong in results)])
        table(f"{SHORT:,} programs that send one datagram and end, {4 * rounds()} rounds", [
            "network namespace", "spawners", "busy loops", "known (least)", "wrong (most)"], rows)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench: needs root")
    main()
