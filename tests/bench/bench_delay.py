"""Measure the time from just before a flow's first system call to its line: as root, python tests/bench/bench_delay.py

Each program writes to a pipe, and a line counts once the reader of that pipe has it. The sender records the time before
it opens each socket.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

from support_bench import CONNTRACK, NFCT_FAST, Program, rounds, space, table

SENDER = """
import socket, struct, sys, time
count, rate = int(sys.argv[1]), int(sys.argv[2])
times = []
kept = []
start = time.monotonic()
for i in range(count):
    left = start + i / rate - time.monotonic()
    if left > 0:
        time.sleep(left)
    now = time.monotonic_ns()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.sendto(b"x", ("10.99.1.1", 1024 + i))
    times.append(now)
    kept.append(sock)
    if len(kept) > 500:
        kept.pop(0).close()
sys.stdout.buffer.write(struct.pack(f"{count}Q", *times))
"""
PORT = re.compile(rb"10\.99\.1\.1/(\d+)|dport\"?[=:](\d+)")


def delays(place, command, count, rate):
    """Return the delay of each line that arrived, in ms, in ascending order."""
    read_end, write_end = os.pipe()
    chunks = []

    def collect():
        while data := os.read(read_end, 1 << 20):
            chunks.append((time.monotonic_ns(), data))

    place.empty()
    program = Program(place, command, write_end)
    os.close(write_end)
    thread = threading.Thread(target=collect)
    thread.start()
    sent = place.start(sys.executable, "-c", SENDER, count, rate, stdout=subprocess.PIPE)
    data, _ = sent.communicate(timeout=120)
    times = memoryview(data).cast("Q")
    place.await_empty_queues()
    time.sleep(0.3)
    program.end(signal.SIGTERM)
    thread.join()
    os.close(read_end)
    found, rest = {}, b""
    for when, part in chunks:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if match := PORT.search(line):
                found.setdefault(int(match[1] or match[2]), when)
    return sorted((found[1024 + i] - times[i]) / 1e6 for i in range(count) if 1024 + i in found)


def main():
    rows = []
    with space() as place:
        for rate in (100, 2_000, 20_000):
            count = min(max(500, 2 * rate), 20_000)
            medians, nearly = {}, {}
            for _ in range(rounds()):
                for name, command in (
                    ("nfct_fast", NFCT_FAST),
                    ("nfct_fast --json", [*NFCT_FAST, "--json"]),
                    ("conntrack -E", CONNTRACK),
                ):
                    found = delays(place, command, count, rate)
                    medians.setdefault(name, []).append(found[len(found) // 2])
                    nearly.setdefault(name, []).append(found[len(found) * 99 // 100])
            rows += [
                [f"{rate:,}", name, f"{statistics.median(medians[name]):.2f}", f"{statistics.median(nearly[name]):.2f}"]
                for name in medians
            ]
    table(
        f"From the socket call to the line, ms, medians of {rounds()}",
        ["flows/s", "program", "median", "99th percentile"],
        rows,
    )


if __name__ == "__main__":
    main()
