"""How many short processes are remembered, and what it costs: `python tests/bench/bench_procevents.py`. A minute, root.

Every process is `bash -c 'echo N >/dev/udp/127.0.0.1/9'`, which lives for one or two milliseconds; it counts if its own
command line, exe, parent and cgroup are known after its end.
"""
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time

from nfct_fast.processcache import ProcessCache
from nfct_fast.procevents import ProcEvents

COUNT = 300


@contextlib.contextmanager
def busy(count):
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def remembered(at_once, realtime):
    cache = ProcessCache(limit=65536, bytes_limit=64 << 20, linger=60)
    events = ProcEvents(cache)
    events.start(realtime=realtime)
    made = []
    for first in range(0, COUNT, at_once):
        batch = [(n, subprocess.Popen(["/bin/bash", "-c", f"echo {n} >/dev/udp/127.0.0.1/9"]))
                 for n in range(first, first + at_once)]
        for _, process in batch:
            process.wait()
        made += batch
    cache.known_at(0, time.monotonic_ns(), 2.0)
    right = wrong = 0
    for n, process in made:
        found = cache.last_known(process.pid)
        if found is not None and found.cmdline is not None:
            good = (found.cmdline[2:] == (f"echo {n} >/dev/udp/127.0.0.1/9",) and found.exe and found.exe.endswith("bash")
                    and found.ppid == os.getpid() and found.cgroup)
            right, wrong = right + bool(good), wrong + (not good)
    lost = events.lost
    events.close()
    return right, wrong, lost


def shell(body, count):
    subprocess.run(["/bin/bash", "-c", f"for ((i = 0; i < {count}; i++)); do {body}; done"], check=True)


def listener():
    """CPU seconds of the listening thread."""
    [thread] = [t for t in threading.enumerate() if t.name == "nfct-procevents"]
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def cost(body, count, rounds=9):
    """Microseconds of elapsed time each, without and with events, in pairs; and of the listening thread's CPU."""
    plain, heard, used = [], [], []
    for _ in range(rounds):
        began = time.perf_counter()
        shell(body, count)
        plain.append((time.perf_counter() - began) / count * 1e6)
        with ProcEvents(ProcessCache()):
            before = listener()
            began = time.perf_counter()
            shell(body, count)
            heard.append((time.perf_counter() - began) / count * 1e6)
            used.append((listener() - before) / count * 1e6)
    return statistics.median(plain), statistics.median(heard), statistics.median(used)


if __name__ == "__main__":
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    for spinning in (0, 1, 2):
        with busy(spinning):
            for realtime in (True, False):
                for at_once in (1, 4):
                    right, wrong, lost = remembered(at_once, realtime)
                    print(f"{spinning} busy cores, {at_once} at a time, {'SCHED_FIFO' if realtime else 'ordinary':<10} thread: "
                          f"{right} of {COUNT} remembered, {wrong} wrong, {lost} messages lost", flush=True)
    for name, body, count in (("fork+exit", "(:)", 500), ("fork+exec+exit", "/bin/true", 200)):
        print("{}: {:.0f} us, with events {:.0f} us elapsed; the listening thread's CPU {:.1f} us".format(
            name, *cost(body, count)))
