"""Measure reading processes, descriptors and socket tables: `python tests/bench/bench_proc.py`. Takes 10 seconds.

Opens sockets on loopback, and closes them at the end. Prints the best of several repetitions in us.
"""

import os
import resource
import signal
import socket
import sys
import time

from nfct_fast.processes.process_cache import ProcessCache
from nfct_fast.processes.process_object import process
from nfct_fast.processes.process_reader import ProcessReader
from nfct_fast.sockets.fd_scanner import FdScanner
from nfct_fast.sockets.proc_net import ProcNet


def best(work, times, rounds=5):
    """Return the us of one `work()`: the lowest mean of `rounds` rounds of `times` calls."""
    least = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            work()
        least = min(least, (time.perf_counter() - began) / times)
    return least * 1e6


def row(what, value, per=""):
    print(f"{what:<58} {value:>10.2f} us{per}")


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def holders(count, each, bound):
    """Fork `count` processes with `each` UDP sockets, and return their pids and one inode of each."""
    made = []
    for _ in range(count):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            keep = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(each)]
            for sock in keep if bound else ():
                sock.bind(("127.0.0.1", 0))
            os.write(write_end, str(inode(keep[each // 2])).encode())
            os.close(write_end)
            signal.pause()
            os._exit(0)
        os.close(write_end)
        made.append((pid, int(os.read(read_end, 32))))
        os.close(read_end)
    return made


def end(made):
    for pid, _ in made:
        os.kill(pid, signal.SIGKILL)
    for pid, _ in made:
        os.waitpid(pid, 0)


def processes():
    me, cache = os.getpid(), ProcessCache(ProcessReader(), max_age=3600)
    cache.lookup(me)
    row("process: read", best(lambda: process(me), 500))
    row("process: cached, checked", best(lambda: cache.lookup(me), 2000))


def scans(count, each):
    made = holders(count, each, False)
    try:
        label = f"{count} processes of {each} fds"
        scanner = FdScanner(budget=float("inf"), negative_ttl=0)
        pid, number = made[count // 2]

        def search_in_vain():
            try:
                scanner.holders(2**50)
            except PermissionError:
                pass

        began = scanner.scanned_fds
        search_in_vain()
        fds = scanner.scanned_fds - began
        full = best(search_in_vain, 1, 3)
        row(f"fds: full scan, {label} ({fds} fds)", full)
        row("     for each fd", full / fds)
        scanner.holders(number, likely_pids=[pid])
        row(f"fds: known inode, {label}", best(lambda: scanner.holders(number), 2000))

        def again():
            with socket.socket() as sock:
                scanner.holders(inode(sock))

        scanner.holders(number, likely_pids=[pid])
        again()
        idle = best(lambda: socket.socket().close(), 2000)
        row(f"fds: new socket of a known process, {label}", best(again, 500) - idle)

        def with_likely_pid():
            FdScanner.holders(cold.pop(), number, likely_pids=[pid])

        cold = [FdScanner() for _ in range(20)]
        row(f"fds: process found by its cgroup, {label}", best(with_likely_pid, 4))

        def without_likely_pid():
            FdScanner.holders(cold.pop(), number)

        cold = [FdScanner(budget=float("inf")) for _ in range(5)]
        row(f"fds: nothing known, {label}", best(without_likely_pid, 1))
    finally:
        end(made)


def tables(count):
    made = holders(max(count // 800, 1), min(count, 800), True)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port, net = sock.getsockname()[1], ProcNet()
            whole = best(lambda: net.find(17, "127.0.0.1", port, "127.0.0.1", 9), 1)
            rows = net.sizes()["udp"][0]
            row(f"table: reading {rows} rows", whole)
            row("     for each row", whole / rows)
            with open("/proc/net/udp", "rb", buffering=0) as file:

                def read():
                    file.seek(0)
                    while file.read(262144):
                        pass

                row("     for each row, in the kernel", best(read, 1) / rows)
            when = time.monotonic_ns()
            net.find(17, "127.0.0.1", port, "127.0.0.1", 9)
            row(
                f"table: look-up after reading {rows} rows",
                best(lambda: net.find(17, "127.0.0.1", port, "127.0.0.1", 9, when), 20000),
            )
    finally:
        end(made)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    processes()
    scans(20, 10)
    scans(400, 50)
    tables(200)
    tables(16000)
