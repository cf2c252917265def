"""The notes' small ring and the larger one: what was noted in either is found with its owner, also while it changes."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("nfct_fast.sockets.socket_notes")
from nfct_fast import conntrack as conntrack_module
from nfct_fast.conntrack import Conntrack
from nfct_fast.processes.cgroup_filesystem import find_mount
from nfct_fast.sockets.socket_notes import SocketNotes
from support.cli import Program, inside, until
from support.netns import inside as entered
from support.netns import made
from support.overruns import read_until_quiet
from support.socket_notes import SEND, answers, netns, owner_of, senders, tuples, unusable  # noqa: F401 -- fixtures

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
USER = 61234
AS_USER = ["setpriv", f"--reuid={USER}", "--clear-groups"]


def mapped(pid="self"):
    """KiB of each map of BPF that the process has in its memory."""
    return [
        (int(end, 16) - int(begin, 16)) >> 10
        for begin, end in re.findall(
            r"^([0-9a-f]+)-([0-9a-f]+) .*anon_inode:bpf-map", Path(f"/proc/{pid}/maps").read_text(), re.M
        )
    ]


@pytest.fixture
def part():
    """A cgroup of the test's own: whatever else the host does is not noted."""
    path = f"{os.fsdecode(find_mount())}/nfbpf-growth-{os.getpid()}"
    os.mkdir(path)
    yield path
    os.rmdir(path)


STEPS = """
import os, socket
def new(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def cookie(s): return int.from_bytes(s.getsockopt(1, 57, 8), "little")
sender, connected, server, listener = new(), new(), new(), socket.create_server(("127.0.0.1", 0))
sender.sendto(b"", ("127.0.0.1", 9)); connected.connect(("127.0.0.1", 10)); server.bind(("127.0.0.1", 0))
print(sender.getsockname()[1], connected.getsockname()[1], cookie(server), cookie(listener)); input()
connected.send(b""); sender.sendto(b"", ("127.0.0.1", 9)); sender.sendto(b"", ("127.0.0.1", 11)); print("sent"); input()
"""


def test_what_was_noted_before_is_found_after(netns, part):
    """And what was connected before, and sends after, too: its record is in the small ring."""
    with SocketNotes(first=1024, notes=8192, cgroup=part) as owners:
        process = netns.script(STEPS, cgroup=part)
        sender, connected, *cookies = map(int, process.stdout.readline().split())
        small = owners.memory
        owners.grow()
        owners.grow()
        assert owners.memory == small + 8192 * 144 and owners.counters()["room"] == 8192
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "sent\n"
        for port, peer in ((sender, 9), (connected, 10), (sender, 11)):
            owner = owners.find(17, "127.0.0.1", port, "127.0.0.1", peer, netns.cookie)
            assert owner["pid"] == process.pid and owner["other_time"] is None and not owner["again"]
        assert all(owners.find_cookie(cookie)["pid"] == process.pid for cookie in cookies)
        process.communicate("\n")
        counters = owners.counters()
        assert counters["replaced"] == counters["displaced"] == counters["collided"] == 0


def test_of_two_programs_the_later_one_and_that_there_was_another(netns, part):
    with SocketNotes(first=1024, notes=8192, cgroup=part) as owners:
        pids = []
        for _ in range(2):
            process = netns.script(SEND, "127.0.0.1", cgroup=part)
            process.communicate(timeout=60)
            pids.append(process.pid)
            assert owner_of(owners, netns)["pid"] == process.pid
            owners.grow()
        owner = owner_of(owners, netns)
        assert owner["pid"] == pids[1] and 0 < owner["other_time"] < owner["time"]


@pytest.mark.parametrize("other", [True, False])
def test_one_program_as_two_users(netns, part, other):
    """Between the two it grew: that it was another user before is seen all the same."""
    with SocketNotes(first=1024, notes=8192, cgroup=part) as owners:
        process = netns.script(
            f"""
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 5555))
s.sendto(b"", ("127.0.0.1", 9)); print("sent"); input()
{other} and os.setresuid({USER}, {USER}, {USER})
s.sendto(b"", ("127.0.0.1", 9))
""",
            cgroup=part,
        )
        assert process.stdout.readline() == "sent\n"
        before = owner_of(owners, netns)
        owners.grow()
        process.communicate("\n")
        owner = owner_of(owners, netns)
        assert (owner["pid"], owner["uid"], owner["again"]) == (process.pid, USER if other else 0, other)
        assert owner["time"] > before["time"] and owner["other_time"] is None


@pytest.mark.parametrize("mode", ["udp", "cudp", "tcp"])
def test_nothing_is_lost_while_it_grows(netns, part, senders, mode):
    """Two senders at full speed meanwhile, however long other programs keep one of the three from running."""
    for _ in range(20):
        with SocketNotes(first=1 << 16, notes=1 << 17, cgroup=part) as owners:
            command = f"sleep 0.2; exec {senders} ports {mode} 9000"
            processes = [netns.start("sh", "-c", command, cgroup=part) for _ in range(2)]
            until(lambda: owners.counters()["written"] > 2000, what="the first notes")  # noqa: B023
            before = owners.counters()["written"]
            owners.grow()
            after = owners.counters()["written"]
            outputs = [(process, process.communicate(timeout=120)[0]) for process in processes]
            counters = owners.counters()
            assert before <= after <= counters["written"] < 1 << 16  # so that the small ring alone would have held all
            assert counters["replaced"] == counters["collided"] == 0
            missed, wrong = map(
                sum, zip(*(answers(owners, tuples(mode, out), process.pid, netns.cookie) for process, out in outputs))
            )
            assert wrong == 0 and missed <= counters["displaced"]
        if after < counters["written"]:
            return
    pytest.fail("it has always grown after they had ended")


SOCKETS = """
import socket, sys, time
for i in range(int(sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b"x", ("127.0.0.1", 1024 + i % 60000))
    if not i % 200: time.sleep(0.002)
"""


def test_a_conntrack_grows_with_need_and_leaves_the_small_ring_in_the_end(monkeypatch):
    """Every flow of 60,000 is named, first in the one, then in both, then in the larger one that has gone round."""
    monkeypatch.setattr(conntrack_module, "_NOTED_FIRST", 4096)
    monkeypatch.setattr(conntrack_module, "NOTED_FLOWS", 32768)
    with entered(), Conntrack(protocol="ipv4/udp", track=True, probe=False, notes=32768) as conntrack:
        assert 32768 * 128 >> 10 not in mapped()
        # Root, whose notes are not limited, but in a group of its own: another program may probe what it hears of here.
        process = subprocess.Popen(
            ["setpriv", f"--regid={USER}", "--clear-groups", sys.executable, "-c", SOCKETS, "60000"]
        )
        flows, end = [], time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            flows += conntrack.read(timeout=0.1)
        flows += read_until_quiet(conntrack)
        assert 32768 * 128 >> 10 in mapped()
        mine = [flow for flow in flows if flow.owner.gid in (USER, None)]
        assert len(mine) >= 59_000 and {flow.owner.pid for flow in mine} == {process.pid}


@pytest.mark.parametrize("arguments", [{"events": ("NEW", "DESTROY")}, {"notes": 1 << 18}])
def test_all_room_from_the_start(arguments):
    """With UPDATE and DESTROY events, which need old notes, and if a number of notes is given."""
    with entered(), Conntrack(track=True, probe=False, **arguments):
        assert arguments.get("notes", 1 << 19) * 128 >> 10 in mapped()


def test_the_program_is_small_until_a_user_sends_fast():
    """It grows although it has given up the right to make maps, and before that user has used up a share."""
    arguments = "--track", "-p", "ipv4/udp", "-f", "{ev.dport} {info.pid} {info.uid}"
    with made() as space, Program(space, *arguments) as program:
        assert sum(mapped(program.pid)) < 20 << 10 and 1 << 16 not in mapped(program.pid)
        for count in (1000, 25_000):
            program.lines.clear()
            sender = subprocess.Popen(inside(space, [*AS_USER, sys.executable, "-c", SOCKETS, str(count)]))
            assert sender.wait(60) == 0
            enough = count - count // 100  # a source port may be taken twice
            until(lambda: len(program.lines) >= enough, what="the flows")
            owners = {line.split(" ", 1)[1] for line in program.lines if not line.endswith(" 0")}
            assert owners == {f"{sender.pid} {USER}"}
            assert (1 << 16 in mapped(program.pid)) == (count > 1000)
        assert program.end()[0] == 0
