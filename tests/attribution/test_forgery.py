"""An unprivileged user tries to have an innocent process named in place of its own."""

import contextlib
import ctypes
import os
import socket
import struct
import time
from pathlib import Path

import pytest

from nfct_fast.conntrack import Conntrack
from nfct_fast.processes import cgroup_filesystem
from nfct_fast.sockets.socket_notes import SocketNotes, netns_cookie
from support.attacks import ATTACKER, IP_PKTINFO, IPV6_PKTINFO, PORT, VICTIM, by_user, done, heard, send, serve
from support.flows import DGRAM, INET, INET6, STREAM, Worker
from support.netns import inside as entered
from support.netns import ip
from support.socket_notes import unusable
from support.users import as_user, own_namespaces

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
CLONE3, CLONE_INTO_CGROUP, SIGCHLD = 435, 0x200000000, 17
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def conntrack():
    with entered(), Conntrack(track=True, probe=False) as opened:
        assert opened.degraded == ()
        yield opened


# ---- 1: what is printed is what was when it sent ----


@pytest.fixture
def cgroups():
    """Two cgroups that root gave to the attacker, with the level above them."""
    top = Path(os.fsdecode(cgroup_filesystem.find_mount())) / f"nfforgery-{os.getpid()}.slice"
    for name in ("a", "b"):
        (top / name).mkdir(parents=True)
    for path in (top, top / "a", top / "b"):
        for each in (path, path / "cgroup.procs"):
            os.chown(each, ATTACKER, ATTACKER)
    yield top
    for path in (top / "a", top / "b", top):
        os.rmdir(path)


def move(path):
    (path / "cgroup.procs").write_text("0")


@pytest.mark.parametrize("way", ["clone3", "moved", "moved back"])
def test_cgroup_is_that_of_the_sending(conntrack, cgroups, way):
    a, b = cgroups / "a", cgroups / "b"

    def work(worker):
        sock = socket.socket(INET, DGRAM)
        if way == "clone3":
            fd = os.open(b, os.O_RDONLY | os.O_DIRECTORY)
            pid = LIBC.syscall(CLONE3, struct.pack("11Q", CLONE_INTO_CGROUP, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, fd), 88)
            if pid == 0:
                sock.sendto(b"x", ("127.0.0.1", PORT))
                os._exit(0)
            assert pid > 0, os.strerror(ctypes.get_errno())
            os.waitpid(pid, 0)
            return worker.say(pid)
        move(b)
        sock.sendto(b"x", ("127.0.0.1", PORT))
        if way == "moved back":
            move(a)
        worker.say(os.getpid())

    def run(worker):
        move(a)
        as_user(ATTACKER)
        work(worker)
        worker.hear()

    with Worker(run) as attacker:
        pid = attacker.hear()
        owner = heard(conntrack, lambda flow: flow.dport == PORT).owner
    assert (owner.pid, owner.uid, owner.process.cgroup) == (pid, ATTACKER, f"/{cgroups.name}/b")


@pytest.mark.parametrize("first", [0, ATTACKER])
def test_ids_are_those_of_the_sending(conntrack, first):
    """A service that gives up its rights after it sent; a program that forks and then is another user's."""

    def work(worker):
        sock = socket.socket(INET, DGRAM)
        os.setresgid(first, first, 0)
        os.setresuid(first, first, 0)
        sock.sendto(b"x", ("127.0.0.1", PORT))
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        as_user(VICTIM)

    with by_user(0, work) as attacker:
        assert attacker.hear() == "done"
        owner = heard(conntrack, lambda flow: flow.dport == PORT).owner
        assert (owner.pid, owner.uid, owner.gid, owner.process.uid) == (attacker.pid, first, first, first)


# ---- 2: a datagram bears an address on which another serves the port ----


def again(sock, peer, how):
    """Connects the socket again, or has it disconnected, with its port kept."""
    if how == "connect again":
        sock.connect((peer[0], peer[1] + 1))
        sock.connect(peer)
    elif how == "unspec":
        assert LIBC.connect(sock.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) == 0


def sendmmsg(sock, control):
    data, aux = ctypes.create_string_buffer(b"x", 1), ctypes.create_string_buffer(control, len(control))
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(data), 1))
    header = struct.pack("PI4xPNPNi4xI4x", 0, 0, ctypes.addressof(vector), 1, ctypes.addressof(aux), len(control), 0, 0)
    assert LIBC.sendmmsg(sock.fileno(), header, 1, 0) == 1, os.strerror(ctypes.get_errno())


INFO4 = socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4x", 0, socket.inet_aton("127.0.0.2"))
INFO6 = socket.IPPROTO_IPV6, IPV6_PKTINFO, socket.inet_pton(INET6, "fd00::2") + struct.pack("=I", 0)
FAMILIES = {
    "4": (INET, "127.0.0.1", "127.0.0.1", "127.0.0.2", INFO4),
    "6": (INET6, "fd00::1", "fd00::1", "fd00::2", INFO6),
    "mapped": (INET6, "::", "::ffff:127.0.0.1", "127.0.0.2", INFO4),
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("how", ["sendmsg", "sendmmsg", "more", "more after", "connect again", "unspec"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_pktinfo_of_a_connected_socket(kind, how, before):
    family, own, peer, forged, info = FAMILIES[kind]

    def work(worker):
        sock = socket.socket(family, DGRAM)
        sock.bind((own, PORT))
        to = (peer, 7000)
        sock.connect(to)
        again(sock, to, how)
        if how == "sendmmsg":
            level, number, data = info
            size = 16 + len(data)
            sendmmsg(sock, struct.pack("Nii", size, level, number) + data + bytes(-size % 8))
        else:
            sock.sendmsg([b"x"], [info], socket.MSG_MORE if "more" in how else 0, to if how == "unspec" else None)
        if how == "more":
            sock.send(b"y")
        elif how == "more after":
            sock.sendmsg([b"y"], [info], 0)
        return sock

    victim_family = INET if "." in forged else INET6
    with entered() as name, contextlib.ExitStack() as stack:
        for address in ("fd00::1", "fd00::2"):
            ip("addr", "add", f"{address}/128", "dev", "lo", "nodad", netns=name)
        time.sleep(0.05)
        victim = by_user(VICTIM, serve(victim_family, forged, PORT, (socket.SOL_SOCKET, socket.SO_REUSEADDR)))
        if before:
            stack.enter_context(done(victim))
        conntrack = stack.enter_context(Conntrack(track=True, probe=False))
        if not before:
            stack.enter_context(done(victim))
        attacker = by_user(ATTACKER, lambda worker: mapped_work(worker, work) if kind == "mapped" else work(worker))
        stack.enter_context(done(attacker))
        flow = heard(conntrack, lambda flow: flow.dport == 7000)
        assert (flow.src, flow.sport) == (forged, PORT) and flow.owner.pid in (attacker.pid, None), flow.owner
        assert flow.owner.uid in (ATTACKER, None) and (flow.owner.pid or flow.owner.reason)


def mapped_work(worker, work):
    """[::] is taken beside 127.0.0.2 only by those that both would share."""
    plain = socket.socket

    class Reusing(plain):
        def __init__(self, *words):
            super().__init__(*words)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    socket.socket = Reusing
    return work(worker)


# ---- 5: who bound the port, and who serves it ----

REUSE = socket.SOL_SOCKET, socket.SO_REUSEADDR
V6ONLY = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY


@pytest.mark.parametrize("family, wild, exact", [(INET, "0.0.0.0", "127.0.0.1"), (INET6, "::", "::1")])
@pytest.mark.parametrize("more_exact", [False, True])
def test_a_second_binder_that_has_died(conntrack, family, wild, exact, more_exact):
    with by_user(VICTIM, serve(family, wild, PORT, REUSE)) as victim:
        assert victim.hear() == "done"
        with done(by_user(ATTACKER, serve(family, exact if more_exact else wild, PORT, REUSE))):
            pass
        with done(by_user(1234, send(family, exact, 5152, (exact, PORT)))):
            flow = heard(conntrack, lambda flow: flow.dport == PORT)
        assert (flow.peer.pid, flow.peer.uid) == (victim.pid, VICTIM)


@pytest.mark.parametrize("kind", [DGRAM, STREAM])
def test_v6only_beside_a_server_from_before(kind):
    with entered(), by_user(VICTIM, serve(INET, "0.0.0.0", PORT, kind=kind)) as victim:
        assert victim.hear() == "done"
        with (
            Conntrack(track=True, probe=False) as conntrack,
            done(by_user(ATTACKER, serve(INET6, "::", PORT, V6ONLY, kind=kind))),
        ):
            with socket.socket(INET, kind) as client:
                client.connect(("127.0.0.1", PORT))
                client.send(b"x")
                flow = heard(conntrack, lambda flow: flow.dport == PORT)
        assert (flow.peer.pid, flow.peer.uid) == (victim.pid, VICTIM)


@pytest.mark.parametrize("kind", [DGRAM, STREAM])
@pytest.mark.parametrize("known", [False, True])
def test_a_port_that_another_takes_within_the_second(kind, known):
    """known: both sockets are younger than the tool, else the first server is older."""
    with entered(), contextlib.ExitStack() as stack:
        first = by_user(VICTIM, serve(INET, "127.0.0.1", PORT, REUSE, kind=kind))
        if not known:
            stack.enter_context(contextlib.closing(first_hear(first)))
        conntrack = stack.enter_context(Conntrack(track=True, probe=False))
        if known:
            first_hear(first)

        def ask():
            with socket.socket(INET, kind) as client:
                client.connect(("127.0.0.1", PORT))
                client.send(b"x")
                port = client.getsockname()[1]
                return heard(conntrack, lambda flow: flow.sport == port).peer

        for _ in range(3):
            assert ask().pid == first.pid
        first.__exit__()
        with by_user(ATTACKER, serve(INET, "127.0.0.1", PORT, REUSE, kind=kind)) as second:
            assert second.hear() == "done"
            peer = ask()
            assert (peer.pid, peer.uid) == (second.pid, ATTACKER)


def first_hear(worker):
    assert worker.hear() == "done"
    worker.close = lambda: None
    return worker


# ---- 9: eviction ----


@pytest.fixture
def watched():
    """A cgroup whose notes alone are counted: other processes of the machine send as well."""
    path = Path(os.fsdecode(cgroup_filesystem.find_mount())) / f"nfshare-{os.getpid()}"
    path.mkdir()
    yield path
    os.rmdir(path)


def moved(path, uid, work):
    """by_user() in that cgroup."""

    def run(worker):
        move(path)
        if uid:
            as_user(uid)
        work(worker)
        worker.say("done")
        worker.hear()

    return Worker(run)


@pytest.mark.parametrize(
    "family, address, others",
    [
        (INET, "127.0.0.1", [f"127.0.0.{i}" for i in range(2, 18)]),
        (INET6, "fd00::1", [f"fd00::{i:x}" for i in range(2, 18)]),
    ],
)
@pytest.mark.parametrize("connected", [False, True])
def test_the_same_ports_from_other_sources(conntrack, family, address, others, connected):
    if family == INET6:
        for each in (address, *others):
            os.system(f"ip addr add {each}/128 dev lo nodad")
        time.sleep(0.1)

    def flood(worker):
        for each in others:
            sock = socket.socket(family, DGRAM)
            sock.bind((each, PORT))
            if connected:
                sock.connect((address, 7000))
                sock.send(b"x")
            else:
                sock.sendto(b"x", (address, 7000))
            sock.close()

    with by_user(VICTIM, send(family, address, PORT, (address, 7000))) as victim:
        assert victim.hear() == "done"
        with done(by_user(ATTACKER, flood)):
            flow = heard(conntrack, lambda flow: flow.src == address and flow.dport == 7000)
        assert (flow.owner.pid, flow.owner.uid, flow.owner.match) == (victim.pid, VICTIM, "bpf")


@pytest.mark.parametrize("family, address", [(INET, "127.0.0.1"), (INET6, "::1")])
@pytest.mark.parametrize("kind", [DGRAM, STREAM])
def test_connecting_again_and_again(watched, family, address, kind):
    """On one socket, for a second: of UDP nothing is sent, of TCP the connection is refused before or after its SYN."""

    def work(worker):
        sock, end, count = socket.socket(family, kind), time.monotonic() + 1, 0
        sock.setblocking(False)
        while time.monotonic() < end:
            sock.connect_ex((address if kind == DGRAM else "255.255.255.255" if family == INET else "ff02::1", 9))
            count += 1
        worker.say(count)

    with (
        entered(),
        SocketNotes(notes=100_000, cgroup=str(watched)) as owners,
        moved(watched, ATTACKER, work) as attacker,
    ):
        assert attacker.hear() > 5000
        assert owners.counters()["written"] < 100


@pytest.mark.parametrize("how", ["connect", "send", "bind", "user namespace"])
def test_a_share_of_the_ring(watched, how):
    def work(worker):
        for i in range(1500):
            with socket.socket(INET, DGRAM) as sock:
                if how == "connect":
                    sock.connect(("127.0.0.1", 1000 + i))
                elif how == "bind":
                    sock.bind(("127.0.0.1", 0))
                else:
                    sock.sendto(b"x", ("127.0.0.1", 1000 + i))

    def in_user_namespace(worker):
        as_user(ATTACKER)
        own_namespaces()
        os.system("ip link set lo up")
        work(worker)

    with (
        entered(),
        SocketNotes(notes=1024, cgroup=str(watched)) as owners,
        moved(watched, 0, send(INET, "127.0.0.1", PORT, ("127.0.0.1", 7000))) as root,
    ):
        assert root.hear() == "done"
        began = time.monotonic()
        with done(moved(watched, 0, in_user_namespace) if how == "user namespace" else moved(watched, ATTACKER, work)):
            seconds = time.monotonic() - began + 2  # of those in which it ran, the first and the last may be cut
        counters = owners.counters()
        assert counters["limited"] > 0 and counters["written"] <= 256 * seconds + 10, (counters, seconds)
        found = owners.find(17, "127.0.0.1", PORT, "127.0.0.1", 7000, netns_cookie())
        assert counters["written"] > 1024 or (found["pid"], found["uid"]) == (root.pid, 0)
