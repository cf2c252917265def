"""Half an hour of everything at once: run as root, python tests/soak. SOAK_MINUTES: how long (30).

Flows without a pause, programs that live for a millisecond, containers that come and go, and once a minute an overrun
of a small receive buffer with the conntrack table emptied meanwhile. At the end every flow that was made has been told
once or counted as lost, and memory, descriptors and threads are what they were after a sixth of the time, within 2 %.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

from nfct_fast.processes.cgroup_filesystem import find_mount
from support_bench import NFCT_FAST, Program, space, status_kib

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SLACK = 1.02
OURS = "10.99."  # another program on this host that hears all namespaces may try loopback in this one
COMMAND = [*NFCT_FAST, "--json", "-p", "udp", "--rcvbuf", "2M", "--rcvbuf-max", "4M"]


class Told(threading.Thread):
    """A thread that reads the program's lines to their end and adds up what they report."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream
        self.flows = self.lost = self.recovered = self.named = 0

    def run(self):
        for line in self.stream:
            record = json.loads(line)
            if record["type"] == "LOST":
                self.lost += record["lost"]
            elif record["original"]["dst"].startswith(OURS):
                self.flows += 1
                self.recovered += record.get("recovered", False)
                self.named += record["owner"]["pid"] is not None


class Maker(threading.Thread):
    """A thread that repeats one kind of activity and counts the flows that it made."""

    def __init__(self, work, pause, end):
        super().__init__()
        self.work, self.pause, self.end = work, pause, end
        self.made, self.failed = 0, None

    def run(self):
        try:
            while not self.end.wait(self.pause):
                self.made += self.work()
        except Exception as error:
            self.failed = error
            self.end.set()


def one_datagram(place, ports, prefix=()):
    """A program of a millisecond; 1."""
    port = next(ports)
    place.run(*prefix, "bash", "-c", f"echo x >/dev/udp/10.99.254.{port // 50000 % 250 + 1}/{port % 50000 + 1024}")
    return 1


def container(place, ports, number):
    """A cgroup and a network namespace that are gone at once; the flow of a program in the one, beside the other."""
    name = f"nfsoak-{os.getpid()}-{next(number)}"
    group = Path(os.fsdecode(find_mount())) / name
    subprocess.run(["ip", "netns", "add", name], check=True)
    group.mkdir()
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "netns", "exec", name, "bash", "-c", "echo x >/dev/udp/127.0.0.1/9"], check=True)
        return one_datagram(place, ports, ["bash", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "-"])
    finally:
        group.rmdir()
        subprocess.run(["ip", "netns", "del", name], check=True)


def overrun(place, pid, addresses):
    """More than the buffer holds while nobody reads; half of it is gone from the table when it is looked at."""
    os.kill(pid, signal.SIGSTOP)
    try:
        made = place.flood(12_000, 0, "fresh", next(addresses))
        place.empty()
        return made + place.flood(12_000, 0, "one", next(addresses))
    finally:
        os.kill(pid, signal.SIGCONT)


def sample(pid):
    # Of what is the program's own: the maps of its BPF programs, whose size is fixed, count as files where they were
    # touched.
    return {
        "memory": status_kib(pid, "RssAnon"),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": status_kib(pid, "Threads"),
    }


def watch(pid, end):
    """Sample every five seconds, and print one sample per minute."""
    begun, samples = time.monotonic(), []
    while not end.wait(5) and time.monotonic() - begun < MINUTES * 60:
        samples.append(sample(pid))
        if len(samples) % 12 == 0:
            print(f"{(time.monotonic() - begun) / 60:5.1f} min  {samples[-1]}", flush=True)
    return samples


def level(samples, at):
    """The least of a minute: what it falls back to between two containers, or two overruns."""
    near = samples[max(0, at - 11) : at + 1]
    return {name: min(one[name] for one in near) for name in near[0]}


def main():
    end = threading.Event()
    with space(udp_timeout=20) as place:
        program = Program(place, COMMAND, subprocess.PIPE)
        # Nobody reads its output yet: whatever it has to hold flows in is filled once.
        made = place.flood(60_000, 20_000, "one", "10.99.253.1")
        told = Told(program.process.stdout)
        told.start()
        floods = (f"10.99.{i % 200 + 1}.1" for i in itertools.count())
        bursts = (f"10.99.{i % 40 + 201}.1" for i in itertools.count())
        hows = itertools.cycle(["one", "fresh", "connected"])
        ports, number = itertools.count(), itertools.count()
        makers = [
            Maker(lambda: place.flood(2_000, 1_000, next(hows), next(floods)), 0, end),
            Maker(lambda: one_datagram(place, ports), 0.05, end),
            Maker(lambda: container(place, ports, number), 2, end),
            Maker(lambda: overrun(place, program.pid, bursts), min(60, MINUTES * 10), end),
        ]
        for maker in makers:
            maker.start()
        try:
            samples = watch(program.pid, end)
        finally:
            end.set()
            for maker in makers:
                maker.join()
        place.await_empty_queues()
        time.sleep(3)
        program.end()
        told.join()
        complaints = program.complaints()
    made += sum(maker.made for maker in makers)
    wrong = [f"{maker.failed!r}" for maker in makers if maker.failed]
    print(
        f"made {made:,}: told {told.flows:,} ({told.recovered:,} recovered, {told.named:,} with a process), "
        f"lost {told.lost:,}"
    )
    if made != told.flows + told.lost:
        wrong.append(f"of {made:,} flows {told.flows + told.lost:,} are told or counted\n{complaints}")
    before, after = level(samples, len(samples) // 6), level(samples, len(samples) - 1)
    print(f"after a sixth of the time {before}, at the end {after}")
    wrong += [
        f"{name}: {before[name]:,} became {after[name]:,}" for name in before if after[name] > before[name] * SLACK
    ]
    sys.exit("soak: " + "; ".join(wrong) if wrong else 0)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("soak: needs root, for network namespaces and conntrack events")
    main()
