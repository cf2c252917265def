"""Measure how long a user's flows wait while another user attacks: as root, python tests/bench/bench_storms.py [ATTACK]

One user sends a datagram from a fresh socket every 5 ms. Measured is the time from just before the socket is opened
until the line is read from a pipe. Sender and reader have real-time priority, so that their own wait for a processor
does not count. Meanwhile another, unprivileged user forks, executes programs, runs thousands of processes or threads,
makes cgroups, network namespaces or addresses, runs a server with 1,500 children, or fills the conntrack table.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from nfct_fast.processes import cgroup_filesystem
from support_bench import NFCT_FAST, Program, compiled, rounds, space, table

VICTIM, ATTACKER, PORT = 65534, 4321, 7007
SECONDS, PERIOD = 6.0, 0.005
FORMAT = "{ev.dport} {ev.sport} {info.pid} {info.uid}"
VICTIM_PROGRAM = """
import os, socket, sys, time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    began = time.monotonic_ns()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"x", ("127.0.0.1", int(sys.argv[3])))
        except OSError:
            continue
        finally:
            time.sleep(float(sys.argv[4]))
        print(sock.getsockname()[1], began)
"""
# Moves through cgroups nested 30 deep, whose names have 255 bytes, and sends from each.
CGROUPS_PROGRAM = """
import os, socket, sys, time
top, uid, wide, deep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with open(top + "/cgroup.procs", "w") as file:
    file.write("0")
os.setgroups([]); os.setgid(uid); os.setuid(uid)
begin = os.open(top, os.O_RDONLY)
said = False
import select
while not select.select([0], [], [], 0)[0]:
    for number in range(wide):
        os.fchdir(begin)
        for level in range(deep):
            name = f"{number}-{level}".ljust(255, "x")
            try:
                os.mkdir(name)
            except FileExistsError:
                pass
            except OSError:
                break
            os.chdir(name)
            try:
                with open("cgroup.procs", "w") as file:
                    file.write("0")
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", ("127.0.0.1", 9))
            except OSError:
                pass
    if not said:
        print("ready", flush=True)
        said = True
"""

# Imports come first: the attacker may lack permission to read the modules.
AS_ATTACKER = f"""
import os, select, signal, socket, subprocess, sys, time
os.setgroups([]); os.setgid({ATTACKER}); os.setuid({ATTACKER})
"""
# Is root of its own network namespace, with 100,000 addresses.
PREFIXES_PROGRAM = """
lines = "".join(f"route add local 10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32 dev lo\\n" for n in range(int(sys.argv[1])))
subprocess.run(["unshare", "-Urn", "sh", "-c", "ip link set lo up && ip -batch - && echo ready && exec sleep 600"],
               input=lines, text=True, check=True)
"""
# Makes one network namespace after another, and keeps the latest.
NAMESPACES_PROGRAM = """
kept, said = [], False
while not select.select([0], [], [], 0.02)[0]:
    kept.append(subprocess.Popen(["unshare", "-Urn", "sleep", "60"]))
    if len(kept) > int(sys.argv[1]):
        kept[0].kill()
        kept.pop(0).wait()
    if not said:
        print("ready", flush=True)
        said = True
"""
# Runs a server whose children all hold its socket, and connects to it.
CHILDREN_PROGRAM = """
listener = socket.create_server(("127.0.0.1", 8099), backlog=4096)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        signal.pause()
print("ready", flush=True)
while not select.select([0], [], [], 0.001)[0]:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 8099))
"""


@contextlib.contextmanager
def storm(place, *words):
    """Run a program of the attacker until the block ends."""
    program = place.start(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert program.stdout.readline() == "ready\n", f"{words} did not start"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


@contextlib.contextmanager
def cgroups(place, wide=340, deep=30):
    top = Path(os.fsdecode(cgroup_filesystem.find_mount())) / f"nfstorm-{os.getpid()}"
    top.mkdir()
    for path in (top, top / "cgroup.procs"):
        os.chown(path, ATTACKER, ATTACKER)
    try:
        with storm(place, sys.executable, "-c", CGROUPS_PROGRAM, top, ATTACKER, wide, deep):
            yield
    finally:
        for _, _, _, fd in os.fwalk(top, topdown=False):
            for name in os.listdir(fd):
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=fd)
        top.rmdir()


@contextlib.contextmanager
def full_table(place):
    """Fill the conntrack table; packets of further flows are dropped."""
    limit = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    place.flood(limit + 10_000, 100_000)
    yield


def storms(place, program):
    yield "calm", contextlib.nullcontext()
    for mode, count in (("forks", 4), ("execs", 4), ("living", 15_000), ("threads", 10_000), ("sockets", 100)):
        yield mode, storm(place, program, mode, count, ATTACKER)
    for name, text, count in (
        ("prefixes", PREFIXES_PROGRAM, 100_000),
        ("children", CHILDREN_PROGRAM, 1500),
        ("namespaces", NAMESPACES_PROGRAM, 300),
    ):
        yield name, storm(place, sys.executable, "-c", AS_ATTACKER + text, count)
    yield "cgroups", cgroups(place)
    yield "table", full_table(place)


def one(place, attack):
    """Measure under one attack.

    Returns:
        The delay of each line in ms; how many flows were not reported, had no process, had a wrong one; the CPU seconds
        and peak MiB of nfct_fast; its messages.
    """
    place.empty()
    read_end, write_end = os.pipe()
    chunks = []

    def collect():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        while data := os.read(read_end, 1 << 20):
            chunks.append((time.monotonic_ns(), data))

    program = Program(place, [*NFCT_FAST, "--track", "-p", "udp|tcp", "-f", FORMAT], write_end)
    os.close(write_end)
    thread = threading.Thread(target=collect)
    thread.start()
    try:
        with attack:
            victim = place.start(
                sys.executable, "-c", VICTIM_PROGRAM, VICTIM, SECONDS, PORT, PERIOD, stdout=subprocess.PIPE, text=True
            )
            said, _ = victim.communicate(timeout=120)
        spent, peak = program.spent(), program.peak_mib()
        place.await_empty_queues()
        time.sleep(0.3)
    finally:
        program.end(signal.SIGTERM)
        thread.join()
        os.close(read_end)
    sent = dict(map(int, line.split()) for line in said.splitlines())
    delays, unnamed, wrong, reported = [], 0, 0, 0
    rest = b""
    for when, data in chunks:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            dport, sport, pid, uid = line.split()
            if int(dport) != PORT or int(sport) not in sent:
                continue
            reported += 1
            delays.append((when - sent[int(sport)]) / 1e6)
            if pid == b"-":
                unnamed += 1
            elif int(pid) != victim.pid or int(uid) != VICTIM:
                wrong += 1
    return delays, len(sent) - reported, unnamed, wrong, spent, peak, " ".join(program.complaints().split())


def main():
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    rows = []
    with space() as place:
        program = compiled("storms", place.directory, "-pthread")
        for _ in range(rounds()):
            for name, attack in storms(place, program):
                if wanted and name not in wanted:
                    continue
                delays, unreported, unnamed, wrong, spent, peak, messages = one(place, attack)
                delays.sort()
                nearly = delays[len(delays) * 99 // 100]
                rows.append(
                    (
                        name,
                        len(delays),
                        f"{statistics.median(delays):.1f}",
                        f"{nearly:.1f}",
                        f"{delays[-1]:.1f}",
                        unreported,
                        unnamed,
                        wrong,
                        f"{spent:.1f}",
                        f"{peak:.0f}",
                    )
                )
                print(*rows[-1], messages, flush=True)
    table(
        "Delay of one user's flows while another user attacks",
        (
            "attack",
            "flows",
            "median ms",
            "99 % ms",
            "longest ms",
            "unreported",
            "no process",
            "wrong process",
            "CPU s",
            "peak MiB",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
