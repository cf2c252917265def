"""What one user's namespaces cost others' flows: run as root, python tests/bench/bench_namespaces.py

A namespace has 100 flows a second, while nobody makes network namespaces in a loop, with flows in each, and lets the oldest of 200 go.
"""
import os
import signal
import statistics
import subprocess
import sys
import time

from bench_delay import delays
from support_bench import NFCT_FAST, rounds, space, table

# Root of namespaces of its own, again and again; each makes flows until it ends.
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
        subprocess.run("ip link set lo up; nft 'table t { chain c { type filter hook output priority 0; ct state new counter; }; }'",
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
    return [subprocess.Popen([sys.executable, "-c", ATTACK, str(SECONDS + 8)], stdout=subprocess.PIPE) for _ in range(count)]


def main():
    rows, found = [], {}
    with space() as place:
        for _ in range(rounds()):
            for count in (0, 1):
                running = attacks(count)
                time.sleep(3 if count else 0)
                found.setdefault(count, []).append(delays(place, [*NFCT_FAST, "--netns", "all", "-p", "ipv4/udp"], SECONDS * 100, 100))
                made = sum(int(attack.communicate()[0]) for attack in running)
                found.setdefault(("made", count), []).append(made)
    for count in (0, 1):
        runs = found[count]
        rows.append([f"{found['made', count][-1]:,}", *(f"{statistics.median([pick(run) for run in runs]):.2f}" for pick in (
            lambda run: run[len(run) // 2], lambda run: run[len(run) * 99 // 100])), f"{max(run[-1] for run in runs):.1f}",
            str(min(map(len, runs)))])
    table(f"From the socket call to the line of another's flow, ms, {rounds()} rounds of {SECONDS} s at 100 flows/s",
          ["namespaces made by a user meanwhile", "median", "99th percentile", "longest", "lines of 1,000"], rows)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for network namespaces and conntrack events")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main()
