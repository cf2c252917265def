"""Measure how one user's network namespaces delay the flows of others: as root, python tests/bench/bench_namespaces.py

One namespace makes 100 flows a second. Meanwhile the user nobody makes network namespaces in a loop, each with flows in
it, and ends the oldest once there are 200.
"""

import os
import signal
import statistics
import subprocess
import sys
import time

from bench_delay import delays

from support_bench import NFCT_FAST, rounds, space, table

# Makes user and network namespaces again and again, in which it is root; each makes flows until it ends.
ATTACK = """
import ctypes, os, socket, subprocess, sys, time
libc = ctypes.CDLL(None)
libc.prctl(1, 9)
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
libc.prctl(4, 1); libc.prctl(1, 9)
alive, made = [], 0
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pid = os.fork()
    if pid == 0:
        if libc.unshare(0x50000000) < 0:
            os._exit(1)
        for name, text in (("setgroups", "deny"), ("uid_map", "0 65534 1"), ("gid_map", "0 65534 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        libc.prctl(1, 9)
        subprocess.run("ip link set lo up; "
                       "nft 'table t { chain c { type filter hook output priority 0; ct state new counter; }; }'",
                       shell=True)
        with socket.socket(2, 2) as sender:
            for port in range(1, 60000):
                sender.sendto(b"x", ("127.0.0.1", port))
                time.sleep(0.01)
        os._exit(0)
    made += 1
    alive.append(pid)
    if len(alive) > 200:
        os.kill(alive[0], 9)
        os.waitpid(alive.pop(0), 0)
print(made)
for pid in alive:
    os.kill(pid, 9)
"""
SECONDS = 10


def attacks(count):
    return [
        subprocess.Popen([sys.executable, "-c", ATTACK, str(SECONDS + 8)], stdout=subprocess.PIPE) for _ in range(count)
    ]


def main():
    rows, found = [], {}
    with space() as place:
        for _ in range(rounds()):
            for count in (0, 1):
                running = attacks(count)
                time.sleep(3 if count else 0)
                command = [*NFCT_FAST, "--netns", "all", "-p", "ipv4/udp"]
                found.setdefault(count, []).append(delays(place, command, SECONDS * 100, 100))
                made = sum(int(attack.communicate()[0]) for attack in running)
                found.setdefault(("made", count), []).append(made)
    for count in (0, 1):
        runs = found[count]
        middle = statistics.median([run[len(run) // 2] for run in runs])
        nearly = statistics.median([run[len(run) * 99 // 100] for run in runs])
        rows.append(
            [
                f"{found['made', count][-1]:,}",
                f"{middle:.2f}",
                f"{nearly:.2f}",
                f"{max(run[-1] for run in runs):.1f}",
                str(min(map(len, runs))),
            ]
        )
    table(
        f"From the socket call to the line, ms, {rounds()} rounds of {SECONDS} s at 100 flows/s",
        ["namespaces made by another user", "median", "99th percentile", "longest", "lines of 1,000"],
        rows,
    )


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for network namespaces and conntrack events")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main()
