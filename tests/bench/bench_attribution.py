"""Cost of naming one flow, by the number of other sockets and processes: run as root.

    python tests/bench/bench_attribution.py [--short]

In a network namespace of its own: first 200 other sockets in 20 processes, then 20,000 in 1,000 processes of 50 open
files each, ten processes to a cgroup as services have them. Beside it what psutil, ss and lsof take for the same
question, where they are installed. --short: only how many of 1,000 short processes are named, one after the other.
"""
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nfct_fast.attribution import Attribution
from nfct_fast.cgroupfs import find_mount
from support_netns import inside
from support_shapes import Worker, collect_count, inode, listening

UDP = socket.IPPROTO_UDP
SIZES = ((20, 10), (1000, 20))
FILES = 50
A_SERVICE = 10


def bound():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", 9))
    return sock


class Crowd:
    """Processes that hold connected UDP sockets: [(pid, port, inode of one of its sockets)]."""

    def __init__(self, processes, sockets):
        self.members = []
        self.folders = []
        mount = find_mount()
        for number in range(processes):
            if mount and number % A_SERVICE == 0:
                self.folders.append(Path(os.fsdecode(mount)) / f"nfshapes-bench-{os.getpid()}-{number}.service")
                self.folders[-1].mkdir()
            ready, told = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(ready)
                if self.folders:
                    (self.folders[-1] / "cgroup.procs").write_text(str(os.getpid()))
                socks = [bound() for _ in range(sockets)]
                files = [os.open("/dev/null", os.O_RDONLY) for _ in range(FILES - sockets - 5)]
                os.write(told, f"{socks[0].getsockname()[1]} {inode(socks[0])}".encode())
                while files:
                    signal.pause()
            os.close(told)
            port, number = os.read(ready, 100).split()
            os.close(ready)
            self.members.append((pid, int(port), int(number)))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for pid, _, _ in self.members:
            os.kill(pid, signal.SIGKILL)
        for pid, _, _ in self.members:
            os.waitpid(pid, 0)
        for folder in self.folders:
            folder.rmdir()


def known(attribution, connect, rounds=200):
    """us for a new socket of a process that was the answer before."""
    def work(worker):
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(rounds)]
        for sock in socks:
            if connect:
                sock.connect(("127.0.0.1", 9))
            else:
                sock.bind(("127.0.0.1", 0))
        worker.say([(sock.getsockname()[1], inode(sock)) for sock in socks])
        worker.hear()

    times = []
    with Worker(work) as asked:
        for port, number in asked.hear():
            took, flow = attribution.time(UDP, "127.0.0.1", port, "127.0.0.1", 9)
            if (flow.owner.pid, flow.owner.inode) != (asked.pid, number):
                sys.exit(f"not this process: {flow.owner}")
            times.append(took / 1000)
    return statistics.median(times)


def unknown(crowd):
    """us for the first flow of a process never asked for, each by an Attribution that knows none of them."""
    times = []
    attribution = Attribution("diag", budget=1e3)
    for pid, port, number in crowd.members[:: max(1, len(crowd.members) // 15)]:
        took, flow = attribution.time(UDP, "127.0.0.1", port, "127.0.0.1", 9)
        if (flow.owner.pid, flow.owner.inode) != (pid, number):
            sys.exit(f"not {pid}: {flow.owner}")
        times.append(took / 1000)
    return statistics.median(times), max(times)


def tool(*words):
    if shutil.which(words[0]) is None:
        return None
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        times.append((time.perf_counter() - start) * 1e6)
    return min(times)


def by_psutil():
    try:
        import psutil
    except ImportError:
        return None
    times = []
    for _ in range(3):
        start = time.perf_counter()
        psutil.net_connections("udp")
        times.append((time.perf_counter() - start) * 1e6)
    return min(times)


def crowds():
    rows = {}
    for processes, sockets in SIZES:
        with inside(), Crowd(processes, sockets) as crowd:
            attribution = Attribution("diag", budget=1e3)
            usual, worst = unknown(crowd)
            figures = {
                "known process, connected UDP": known(attribution, True),
                "known process, unconnected UDP": known(attribution, False),
                "unknown process, median": usual,
                "unknown process, worst": worst,
                "psutil.net_connections": by_psutil(),
                "ss -unp": tool("ss", "-unp"),
                "lsof -nP -i UDP": tool("lsof", "-nP", "-i", "UDP"),
            }
            for name, figure in figures.items():
                rows.setdefault(name, []).append(figure)
    print(f"{'us, other sockets / processes:':34}" + "".join(f"{p * s:>12,} /{p:>6,}" for p, s in SIZES))
    for name, row in rows.items():
        print(f"{name:34}" + "".join(f"{figure:20,.1f}" if figure is not None else f"{'-':>20}" for figure in row))


def spray(worker):
    truth = {}
    for number in range(1000):
        pid = os.fork()
        if pid == 0:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 10000 + number))
            os._exit(0)
        truth[10000 + number] = pid
        os.waitpid(pid, 0)
    return truth


def burn(worker):
    while True:
        pass


def short(mode, busy):
    with inside(), listening(mode) as conntrack, Worker(spray) as work:
        other = Worker(burn) if busy else None
        flows = collect_count(conntrack, lambda flow: 10000 <= flow.dport < 11000, 1000, 60)
        truth = work.result()
        if other:
            other.__exit__()
    named = [flow for flow in flows if flow.owner.pid]
    wrong = [flow for flow in named if flow.owner.pid != truth[flow.dport]]
    uid = sum(flow.owner.uid is not None for flow in flows)
    print(f"1,000 short processes, {mode}, {'one core busy' if busy else 'idle'}: heard {len(flows)}, named {len(named)}, "
          f"wrong {len(wrong)}, with uid {uid}")


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if "--short" not in sys.argv:
        crowds()
    for mode in ("diag", "proc"):
        for busy in (False, True):
            short(mode, busy)


if __name__ == "__main__":
    main()
