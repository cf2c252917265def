"""What the BPF programs need, change and leave behind: privileges, cgroups, traffic, and after kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("nfct_fast.sockets.socket_notes")
from nfct_fast.processes.cgroup_filesystem import find_mount
from nfct_fast.sockets import socket_notes
from nfct_fast.sockets.socket_notes import SocketNotes
from support.socket_notes import (  # noqa: F401 -- netns, owners and senders are fixtures
    SEND,
    answers,
    netns,
    owner_of,
    owners,
    senders,
    tuples,
    unusable,
)

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]


def test_two_instances_do_not_disturb_each_other(owners, netns, senders):
    with SocketNotes(notes=4000) as second:
        process = netns.start(senders, "ports", "tcp", 300)
        wanted = tuples("tcp", process.communicate(timeout=60)[0])
        for each in (owners, second):
            assert answers(each, wanted, process.pid, netns.cookie) == (0, 0)


def test_only_the_cgroup_asked_for(netns):
    path = f"{os.fsdecode(find_mount())}/nfbpf-test-{os.getpid()}"
    os.mkdir(path)
    try:
        with SocketNotes(notes=1000, cgroup=path) as part:
            assert part.cgroup == path and not part.covers_all
            outside = netns.script(SEND, "127.0.0.1")
            outside.communicate(timeout=60)
            assert owner_of(part, netns) is None
            inside = netns.script(SEND, "127.0.0.1", cgroup=path)
            inside.communicate(timeout=60)
            owner = owner_of(part, netns)
            assert owner["pid"] == inside.pid and owner["cgroup_id"] == os.stat(path).st_ino
    finally:
        os.rmdir(path)


TRAFFIC = """
import hashlib, os, socket, threading
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    l = socket.create_server((address, 0), family=family); data = os.urandom(1 << 20); got = []
    def read():
        c = l.accept()[0]; h = hashlib.sha256()
        while chunk := c.recv(65536): h.update(chunk)
        got.append(h.digest())
    t = threading.Thread(target=read); t.start()
    c = socket.create_connection(l.getsockname()[:2]); c.sendall(data); c.close(); t.join()
    assert got == [hashlib.sha256(data).digest()]
    a, b = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    a.bind((address, 0)); b.bind((address, 0))
    for size in (0, 1, 1400, 9000, 60000):
        b.sendto(data[:size], a.getsockname()); got, peer = a.recvfrom(65536)
        assert got == data[:size] and peer[:2] == b.getsockname()[:2]
    b.connect(a.getsockname()); b.send(b"x"); assert a.recv(9) == b"x"
    s = socket.socket(family, socket.SOCK_STREAM)
    try: s.connect((address, 9)); raise SystemExit("connected")
    except ConnectionRefusedError: pass
print("same")
"""


def test_traffic_is_what_it_is_without(owners, netns):
    assert netns.python(TRAFFIC).strip() == "same"


HOLDER = """
from nfct_fast.sockets.socket_notes import SocketNotes
owners = SocketNotes()
print("ready")
input()
"""


@pytest.mark.skipif(not shutil.which("bpftool"), reason="no bpftool to look with")
def test_nothing_is_left_after_kill_9(netns):
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == "ready\n"
    ids = {"prog": set(), "map": set(), "link": set()}
    for fd in os.listdir(f"/proc/{process.pid}/fdinfo"):
        with open(f"/proc/{process.pid}/fdinfo/{fd}") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in ("prog_id", "map_id", "link_id"):
                    ids[name[:-3]].add(int(value))
    # Twelve on the cgroup, and three on tracepoints.
    assert [len(ids[kind]) for kind in ("prog", "link", "map")] == [15, 15, 10]

    def left(kind):
        shown = subprocess.run(["bpftool", "-j", kind, "show"], check=True, capture_output=True, text=True).stdout
        return {each["id"] for each in json.loads(shown)} & ids[kind]

    def attached():
        tree = subprocess.run(
            ["bpftool", "-j", "cgroup", "show", os.fsdecode(find_mount())], capture_output=True, text=True
        ).stdout
        return {each["id"] for each in json.loads(tree.strip() or "[]")} & ids["prog"]

    assert all(left(kind) == ids[kind] for kind in ids) and len(attached()) == 12
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + 10  # the kernel frees after a grace period
    while time.monotonic() < end and any(left(kind) for kind in ids):
        time.sleep(0.05)
    assert not any(left(kind) for kind in ids) and not attached()


@pytest.mark.parametrize(
    "kept, refused",
    [
        ("cap_bpf,cap_net_admin,cap_perfmon", None),
        ("cap_sys_admin,cap_net_admin", None),
        ("cap_net_admin,cap_perfmon", "CAP_BPF"),
        ("cap_bpf,cap_perfmon", "CAP_NET_ADMIN"),
        ("cap_bpf,cap_net_admin", "CAP_PERFMON"),
    ],
)
def test_the_least_capabilities(kept, refused):
    text = """
from nfct_fast.sockets.socket_notes import SocketNotes
try: SocketNotes(notes=1)
except PermissionError as error: print(error)
else: print("loaded")
"""
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv")
    keep = ",".join("+" + name[4:] for name in kept.split(","))
    out = subprocess.run(
        ["setpriv", "--inh-caps=-all", f"--bounding-set=-all,{keep}", sys.executable, "-c", text],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout
    assert out == "loaded\n" if refused is None else f"{refused} missing" in out, out


def test_wrong_arguments_and_use_after_close(tmp_path):
    for notes in (0, 1 << 25):
        with pytest.raises(ValueError):
            SocketNotes(notes=notes)
    with pytest.raises(FileNotFoundError):
        SocketNotes(cgroup=str(tmp_path / "none"))
    with pytest.raises(OSError, match="not a cgroup v2 directory"):
        SocketNotes(notes=1, cgroup=str(tmp_path))
    owners = SocketNotes(notes=1)
    owners.close()
    owners.close()
    assert owners.find(17, "127.0.0.1", 1, "127.0.0.1", 2, 1) is None and owners.find_cookie(1) is None
    with pytest.raises(ValueError):
        owners.counters()


def test_default_memory(owners):
    assert owners.memory == (82 << 20) + (256 << 10) and owners.notes == 1 << 19


def test_without_the_program_for_packets(netns, senders):
    with SocketNotes(notes=5000, packets=False) as owners:
        assert not owners.packets
        for mode in ("tcp", "udp"):
            process = netns.start(senders, "ports", mode, 500)
            wanted = tuples(mode, process.communicate(timeout=60)[0])
            assert answers(owners, wanted, process.pid, netns.cookie) == (0, 0)
        process = netns.script("""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("127.0.0.1", 9)); s.send(b"")
print(s.getsockname()[1], int.from_bytes(s.getsockopt(1, 57, 8), "little"))
""")
        port, cookie = map(int, process.communicate(timeout=60)[0].split())
        assert owners.find(17, "127.0.0.1", port, "127.0.0.1", 9, netns.cookie) is None
        assert owners.find_cookie(cookie)["pid"] == process.pid


def test_a_cgroup_root_of_its_own_where_none_is_mounted(monkeypatch, netns):
    monkeypatch.setattr(socket_notes, "find_mount", lambda: None)
    with open("/proc/self/mountinfo") as before:
        mounts = before.read()
    with SocketNotes(notes=1000) as owners:
        assert owners.covers_all
        process = netns.script(SEND, "127.0.0.1")
        process.communicate(timeout=60)
        assert owner_of(owners, netns)["pid"] == process.pid
        with open("/proc/self/mountinfo") as after:
            assert after.read().count("cgroup2") == mounts.count("cgroup2")
