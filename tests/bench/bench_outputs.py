"""What outputs cost: CPU time of playing a recording to one output, to each other kind, and to several.

Run as root: python tests/bench/bench_outputs.py [FLOWS] [ROUNDS]. Prints a table; rounds of all kinds alternate.
"""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent))

from support.cli import COMMAND, inside  # noqa: E402
from support.netns import ip, made, use_conntrack  # noqa: E402


def record(netns, path, flows):
    """Record so many flows of a sender whose process is known."""
    flood = path.with_name("flood")
    subprocess.run(["cc", "-O2", "-o", flood, BENCH / "flood.c"], check=True)
    for kind in (("type", "dummy"), ("type", "ifb")):
        if subprocess.run(["ip", "-n", netns, "link", "add", "sink", *kind], capture_output=True).returncode == 0:
            break
    else:
        subprocess.run(["ip", "-n", netns, "tuntap", "add", "sink", "mode", "tun"], check=True)
    ip("link", "set", "sink", "up", netns=netns)
    ip("addr", "add", "10.99.0.1/16", "dev", "sink", netns=netns)
    with subprocess.Popen(
        inside(netns, [*COMMAND, "-p", "udp", "--record", path]), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as program:
        threading.Event().wait(3)
        subprocess.run(inside(netns, [flood, str(flows), "10000", "one", "10.99.1.1"]), check=True, capture_output=True)
        threading.Event().wait(1)
        program.terminate()
        program.communicate()


def cost(arguments):
    """Microseconds of CPU time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return 1e6 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def drain(sock):
    """Read what comes, in this process, whose time is not counted."""
    while True:
        sock.recv(1 << 16)


def main(flows=100_000, rounds=5):
    """Measure, and print the least of all rounds for each kind, less that of a recording whose flows are refused."""
    with tempfile.TemporaryDirectory() as directory, made() as netns:
        use_conntrack(netns)
        recording, log = Path(directory, "recording"), Path(directory, "log")
        record(netns, recording, flows)
        local = Path(directory, "socket")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(local))
        local.chmod(0o666)
        Path(directory).chmod(0o711)
        threading.Thread(target=drain, args=(sock,), daemon=True).start()
        replay = ["--replay", str(recording)]
        kinds = {
            "nothing (a filter refuses all)": ["dport 0"],
            "standard output": [],
            "standard output, JSON": ["--json"],
            "standard output, columns": ["--columns"],
            "standard output, JSON, 5 fields": ["--json", "--fields", "time,src,dst,dport,owner.comm"],
            "a file": ["-o", str(log)],
            "standard output and a file": ["-o", "-", "-o", str(log)],
            "/dev/log": [f"--syslog=unix:{local}"],
        }
        best = dict.fromkeys(kinds, float("inf"))
        for _ in range(rounds):
            for kind, arguments in kinds.items():
                log.unlink(missing_ok=True)
                best[kind] = min(best[kind], cost([*replay, *arguments]))
        base = best.pop("nothing (a filter refuses all)")
        print(f"| output of {flows} flows | µs of CPU time per flow |\n|---|---|")
        for kind, least in best.items():
            print(f"| {kind} | {(least - base) / flows:.2f} |")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("needs root")
    main(*map(int, sys.argv[1:]))
