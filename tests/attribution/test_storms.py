"""One user forks, executes, has thousands of processes, threads or cgroups, or fills the conntrack table:
another's flows keep their names.

How long they wait meanwhile is measured by bench/bench_storms.py."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nfct_fast.processes import cgroup_filesystem
from support.cli import Program, inside, until
from support.paths import TESTS
from support.socket_notes import unusable

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
VICTIM, ATTACKER, PORT, COUNT, GROWTH = 65534, 4321, 7007, 300, 48 << 10
VICTIM_PROGRAM = """
import os, socket, sys, time
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for number in range(int(sys.argv[3])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 20_000 + number))     # a port that is taken again by chance is no new flow
        sock.sendto(b"x", ("127.0.0.1", int(sys.argv[2])))
        print(20_000 + number)
    time.sleep(0.005)
"""
# A chain of cgroups, each of which it enters and sends from: the path of the last has 7,680 bytes.
CGROUPS_PROGRAM = """
import os, socket, sys
top, uid, wide, deep = sys.argv[1], *map(int, sys.argv[2:])
with open(top + "/cgroup.procs", "w") as file:
    file.write("0")
os.setgroups([]); os.setgid(uid); os.setuid(uid)
begin = os.open(top, os.O_RDONLY)
for number in range(wide):
    os.fchdir(begin)
    for level in range(deep):
        name = f"{number}-{level}".ljust(255, "x")
        os.mkdir(name)
        os.chdir(name)
        with open("cgroup.procs", "w") as file:
            file.write("0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("", 10_000 + number * deep + level))
            sock.sendto(b"x", ("127.0.0.1", 9))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    made = tmp_path_factory.mktemp("storms") / "storms"
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or pytest.skip("no C compiler")
    subprocess.run([compiler, "-O2", "-pthread", "-o", made, TESTS / "bench" / "storms.c"], check=True)
    made.parent.chmod(0o755)
    return made


@contextlib.contextmanager
def storm(netns, *words):
    """A program in a session of its own, running until the block ends."""
    process = subprocess.Popen(
        inside(netns, [*map(str, words)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "ready\n", words
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextlib.contextmanager
def cgroups(netns, wide, deep):
    top = Path(os.fsdecode(cgroup_filesystem.find_mount())) / f"nfstorm-{os.getpid()}"
    top.mkdir()
    for path in (top, top / "cgroup.procs"):
        os.chown(path, ATTACKER, ATTACKER)
    try:
        with storm(netns, sys.executable, "-c", CGROUPS_PROGRAM, top, ATTACKER, wide, deep) as process:
            yield process
    finally:
        for _, names, _, fd in os.fwalk(top, topdown=False):
            for name in names:
                os.rmdir(name, dir_fd=fd)
        top.rmdir()


def size(program):
    """Resident KiB, threads, and descriptors."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{program.pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]), int(status["Threads"]), len(os.listdir(f"/proc/{program.pid}/fd"))


def checked(netns, attack):
    """The records of the attacker's flows, after the victim's were found to be right, with all that was said."""
    # All room for notes from the start: that it grows with need is tested by test_notes_growth.
    with Program(netns, "--json", "--track", "-p", "udp", "--notes", "500000") as program:
        before = size(program)
        with attack:
            words = [sys.executable, "-c", VICTIM_PROGRAM, *map(str, (VICTIM, PORT, COUNT))]
            victim = subprocess.Popen(inside(netns, words), stdout=subprocess.PIPE, text=True)
            ports = [int(line) for line in victim.communicate(timeout=60)[0].splitlines()]
            program.await_all_read()
        after = size(program)
        assert program.end()[0] == 0
    records = [json.loads(line) for line in program.lines]
    lost = sum(record["lost"] for record in records if record["type"] == "LOST")
    mine, others = [], []
    for record in records:
        if record["type"] == "NEW":
            (mine if record["original"]["dport"] == PORT else others).append(record)
    assert lost == 0 and len(ports) == COUNT
    assert sorted(record["original"]["sport"] for record in mine) == sorted(ports)
    for record in mine:
        owner = record["owner"]
        assert (owner["pid"], owner["uid"]) == (victim.pid, VICTIM) and VICTIM_PROGRAM in owner["cmdline"], record
    for record in others:
        assert record["owner"]["pid"] != victim.pid and record["owner"].get("uid") in (ATTACKER, None), record
    # Namespaces that others make meanwhile take a descriptor each.
    assert after[0] - before[0] < GROWTH and after[1] == before[1] and after[2] < before[2] + 32, (before, after)
    return others, program.complaints


@pytest.mark.parametrize(
    "mode, count", [("forks", 4), ("execs", 4), ("living", 4000), ("threads", 4000), ("sockets", 50)]
)
def test_processes_threads_and_sockets(netns, program, mode, count):
    others, _ = checked(netns, storm(netns, program, mode, count, ATTACKER))
    if mode in ("living", "threads"):
        assert len(others) > 100
        # Two that happened to have the same port within 0.1 s cannot be distinguished.
        assert all(record["owner"]["pid"] or record["owner"]["reason"] == "ambiguous" for record in others)
    if mode == "living":
        known = [record["owner"]["pid"] for record in others if record["owner"]["pid"]]
        assert len(set(known)) == len(known) > count * 0.8


def test_cgroups_thirty_deep(netns):
    """A path of more than 4 KiB is not reported, or only its beginning; never another program's."""
    wide, deep = 20, 30
    others, _ = checked(netns, cgroups(netns, wide, deep))
    assert len(others) == wide * deep
    top = f"/nfstorm-{os.getpid()}"
    known = [record["owner"]["cgroup"] for record in others if "cgroup" in record["owner"]]
    assert all(path.startswith(top) for path in known) and len(known) >= wide * deep // 3


def test_a_full_table(netns, flood):
    """New connections are dropped by the kernel then. All that were made are printed or counted."""
    limit = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    with Program(netns, "--json", "--track", "-p", "udp", "--attribution", "off") as program:
        flood(limit + 2_000, 80_000)
        program.await_all_read()
        counted = subprocess.run(inside(netns, ["conntrack", "-C"]), check=True, capture_output=True, text=True)
        entries = int(counted.stdout)
        until(lambda: any("conntrack table is" in line for line in program.complaints), what="a word of it")
        assert program.end()[0] == 0
    records = [json.loads(line) for line in program.lines]
    lost = sum(record["lost"] for record in records if record["type"] == "LOST")
    assert limit * 0.95 < entries <= limit
    assert entries <= sum(record["type"] == "NEW" for record in records) + lost <= limit + 2_000
