"""The responder cache names the process that a full look-up would name, and forgets one that no longer serves it."""

import array
import collections
import contextlib
import ctypes
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from nfct_fast.attribution.resolver import Resolver
from support.child import Child
from support.cli import Program, until
from support.flows import Worker, collect_count, listening
from support.hooks import find_flow
from support.netns import inside, ip, ip6_address, made
from support.socket_notes import unusable

pytestmark = pytest.mark.root
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
INET, INET6 = socket.AF_INET, socket.AF_INET6
PORT, OURS, OTHER = 5000, "10.77.0.1", "10.77.0.2"
ADDRESSES = {INET: (OURS, OTHER), INET6: ("fd77::1", "fd77::2")}
STRANGER = {INET: "192.0.2.9", INET6: "2001:db8::9"}
KINDS = pytest.mark.parametrize("kind", [STREAM, DGRAM], ids=["tcp", "udp"])
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


@pytest.fixture
def netns():
    with inside() as name:
        ip("link", "add", "served", "type", "veth", "peer", "name", "wire")
        ip("link", "set", "served", "up")
        ip("link", "set", "wire", "up")
        for address in ADDRESSES[INET]:
            ip("addr", "add", f"{address}/24", "dev", "served")
        for address in ADDRESSES[INET6]:
            ip6_address(address, 64, "served", name)
        yield name


@pytest.fixture
def fast(netns):
    if reason := unusable():
        pytest.skip(reason)
    # What it finds is compared, not how much of it in what time.
    found = Resolver("bpf", budget=float("inf"))
    yield found
    found.close()


@pytest.fixture
def slow(netns):
    found = Resolver("diag", budget=float("inf"))
    yield found
    found.close()


def ask(found, kind, address, port=PORT, peer=1000):
    """Who would serve a connection that begins now, or a datagram, from elsewhere."""
    family = INET6 if ":" in address else INET
    proto = socket.IPPROTO_TCP if kind == STREAM else socket.IPPROTO_UDP
    return find_flow(found, proto, STRANGER[family], peer, address, port, begins=True).owner


def facts(owner):
    return (owner.pid, owner.reason, owner.match, owner.inode, owner.uid, {process.pid for process in owner.processes})


def opened(kind, address=OURS, port=PORT, options=(), v6only=None):
    sock = socket.socket(INET6 if ":" in address else INET, kind)
    for option in options:
        sock.setsockopt(*option)
    if v6only is not None:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    sock.bind((address, port))
    if kind == STREAM:
        sock.listen(8)
    return sock


def kernel_version():
    return tuple(map(int, re.match(r"(\d+)\.(\d+)", platform.release()).groups()))


def die_with(parent):
    """In its child."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def serving(*sockets, children=0, name=None, act=None):
    """A Worker that has opened these, given as arguments of opened(), and as many children; it says it is ready, and
    does what it is told: act(sockets), or to close them."""

    def work(worker):
        socks = [opened(*one) for one in sockets]
        parent = os.getpid()
        for _ in range(children):
            if os.fork() == 0:
                die_with(parent)
                while True:
                    time.sleep(60)
        if name is not None:
            ctypes.CDLL(None).prctl(PR_SET_NAME, name)
        worker.say("ready")
        while True:
            worker.say({"act": act, "close": close_all}[worker.hear()](socks))

    return Worker(work)


@contextlib.contextmanager
def ready(*arguments, **named):
    with serving(*arguments, **named) as worker:
        assert worker.hear() == "ready"
        yield worker


def do(worker, what):
    worker.say(what)
    return worker.hear()


def close_all(socks):
    for sock in socks:
        sock.close()


REUSE = ((socket.SOL_SOCKET, socket.SO_REUSEPORT, 1),)
DEVICE = (*REUSE, (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"served"))

# Each a list of servers; a server is the sockets it has, or a dict of them with more arguments.
SHAPES = {
    "one address": [{"sockets": [(OURS,)]}],
    "any address": [{"sockets": [("0.0.0.0",)]}],
    "nobody": [],
    "another port": [{"sockets": [(OURS, PORT + 1)]}],
    "any address, and one of another": [{"sockets": [("0.0.0.0", PORT, REUSE)]}, {"sockets": [(OTHER, PORT, REUSE)]}],
    "a group of one process": [{"sockets": [(OURS, PORT, REUSE)] * 4}],
    "a group of two processes": [{"sockets": [(OURS, PORT, REUSE)]}, {"sockets": [(OURS, PORT, REUSE)]}],
    "both families": [{"sockets": [("::", PORT, (), 0)]}],
    "IPv6 alone": [{"sockets": [("::", PORT, (), 1)]}],
    "each family its own": [{"sockets": [("::", PORT, REUSE, 1)]}, {"sockets": [("0.0.0.0", PORT, REUSE)]}],
    "a device's, and any": [{"sockets": [("0.0.0.0", PORT, DEVICE)]}, {"sockets": [("0.0.0.0", PORT, REUSE)]}],
    "a device's": [{"sockets": [("0.0.0.0", PORT, DEVICE)]}],
    "forked": [{"sockets": [(OURS,)], "children": 5}],
    "forked fifty times": [{"sockets": [(OURS,)], "children": 50}],
    "a group, forked": [{"sockets": [(OURS, PORT, REUSE)] * 2, "children": 3}],
    "held by a manager too": [{"sockets": [(OURS,)], "children": 1, "name": b"systemd"}],
}


@KINDS
@pytest.mark.parametrize("shape", SHAPES)
def test_remembered_it_is_as_the_exact_look_up_says(fast, slow, kind, shape):
    with contextlib.ExitStack() as stack:
        for server in SHAPES[shape]:
            more = {name: value for name, value in server.items() if name != "sockets"}
            stack.enter_context(ready(*[(kind, *one) for one in server["sockets"]], **more))
        for family in (INET, INET6):
            for address in ADDRESSES[family]:
                exact = facts(ask(slow, kind, address))
                for peer in range(1000, 1004):
                    assert facts(ask(fast, kind, address, peer=peer)) == exact, (address, peer)
        assert fast.responder_cache.hits >= 8 or "group" in shape or "device" in shape


@KINDS
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_takes_the_port_is_named_at_once(netns, kind, when):
    """Also after a server that was there before the notes began."""
    if reason := unusable():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(ready((kind,))) if when == "before" else None
        found = stack.enter_context(contextlib.closing(Resolver("bpf")))
        old = old or stack.enter_context(ready((kind,)))
        for _ in range(3):
            assert ask(found, kind, OURS).pid == old.pid
        do(old, "close")
        assert (ask(found, kind, OURS).pid, ask(found, kind, OURS).reason) == (None, "closed")
        for _ in range(5):
            with ready((kind,)) as new:
                assert [ask(found, kind, OURS).pid for _ in range(3)] == [new.pid] * 3
                do(new, "close")
                assert [ask(found, kind, OURS).pid for _ in range(3)] == [None] * 3


@KINDS
def test_a_program_that_executes_another_is_named_as_that(fast, kind):
    told, tell = os.pipe()

    def execute(socks):
        for fd in (socks[0].fileno(), tell):
            os.set_inheritable(fd, True)
        os.execv("/bin/sh", ["sh", "-c", f"echo >/proc/self/fd/{tell}; kill -STOP $$", "1234"])

    with ready((kind,), act=execute) as server:
        before = [ask(fast, kind, OURS).process.cmdline for _ in range(3)]
        assert before[0] == before[1] == before[2]
        server.say("act")
        os.read(told, 1)
        assert ask(fast, kind, OURS).pid == server.pid
        assert ask(fast, kind, OURS).process.cmdline[-1] == "1234"
    os.close(told)
    os.close(tell)


@KINDS
def test_who_dies_is_not_named(fast, kind):
    with ready((kind,)) as server:
        assert [ask(fast, kind, OURS).pid for _ in range(3)] == [server.pid] * 3
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        assert ask(fast, kind, OURS).pid is None


@KINDS
def test_a_parent_that_leaves_it_to_its_child(fast, kind):
    def leave(socks):
        parent = os.getpid()
        if (child := os.fork()) == 0:
            die_with(parent)
            while True:
                time.sleep(60)
        close_all(socks)
        return child

    with ready((kind,), act=leave) as server:
        assert [ask(fast, kind, OURS).pid for _ in range(3)] == [server.pid] * 3
        child = do(server, "act")
        # No note shows that it closed its own descriptor.
        until(lambda: ask(fast, kind, OURS).pid == child)


@KINDS
def test_handed_over_a_unix_socket(fast, kind):
    here, there = socket.socketpair(socket.AF_UNIX, STREAM)

    def take(_):
        data, ancillary, *_ = there.recvmsg(1, socket.CMSG_SPACE(4))
        kept.append(socket.socket(fileno=array.array("i", ancillary[0][2])[0]))

    def give(socks):
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [socks[0].fileno()]))])
        close_all(socks)

    kept = []
    with here, there, ready((kind,), act=give) as giver, ready(act=take) as taker:
        assert [ask(fast, kind, OURS).pid for _ in range(3)] == [giver.pid] * 3
        do(giver, "act")
        do(taker, "act")
        until(lambda: ask(fast, kind, OURS).pid == taker.pid)


@KINDS
def test_of_many_vacant_ports_the_one_that_is_taken_is_known_at_once(fast, kind):
    ports = range(20000, 20500)
    for port in ports:
        assert ask(fast, kind, OURS, port).reason == "closed"
    assert fast.closed_ports.listings and fast.closed_ports.hits > 300
    for port in ports[::50]:
        with ready((kind, "0.0.0.0", port)) as server:
            assert ask(fast, kind, OURS, port).pid == server.pid
        assert ask(fast, kind, OURS, port).reason == "closed"


def test_of_many_vacant_ports_one_that_is_taken_by_sending_is_known_at_once(fast):
    """Also if it is one of the first 2^19 sockets of the host, whose tag is that of an empty slot."""

    def send(_):
        sock = socket.socket(INET, DGRAM)
        kept.append(sock)
        sock.sendto(b"x", (OTHER, 9))
        return sock.getsockname()[1]

    kept = []
    first, last = map(int, open("/proc/sys/net/ipv4/ip_local_port_range").read().split())
    for port in range(first, last + 1, 97):
        assert ask(fast, DGRAM, OURS, port).reason == "closed"
    assert fast.closed_ports.hits > 100
    with ready(act=send) as server:
        assert ask(fast, DGRAM, OURS, do(server, "act")).pid == server.pid


def test_a_listener_that_never_bound(fast):
    def listen(socks):
        sock = socket.socket(INET, STREAM)
        sock.listen(8)
        socks.append(sock)
        return sock.getsockname()[1]

    with ready(act=listen) as server:
        for port in range(20000, 20100):
            assert ask(fast, STREAM, OURS, port).reason == "closed"
        port = do(server, "act")
        assert [ask(fast, STREAM, OURS, port).pid for _ in range(3)] == [server.pid] * 3
        do(server, "close")
        assert ask(fast, STREAM, OURS, port).pid is None


def test_sockets_that_others_open_and_close_change_nothing(fast):
    """No user has what is remembered of others forgotten."""
    with ready((STREAM,)) as server:
        assert ask(fast, STREAM, OURS).pid == server.pid
        misses = fast.responder_cache.misses
        for _ in range(200):
            socket.socket(INET, DGRAM).close()
            sock = socket.socket(INET, STREAM)
            sock.listen(1)
            sock.close()
            with socket.socket(INET, DGRAM) as sock:
                sock.connect((OTHER, 9))
        assert ask(fast, STREAM, OURS).pid == server.pid
        assert fast.responder_cache.misses == misses


def make(outside, count, kind, first=1024):
    """Flows from many ports of elsewhere to the server, as fast as one socket can."""
    subprocess.run(
        [
            "nsenter",
            f"--net=/run/netns/{outside}",
            sys.executable,
            "-c",
            f"""
import socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
address = socket.inet_aton("{STRANGER[INET]}"), socket.inet_aton("{OURS}")
for i in range({count}):
    if {kind == STREAM}:
        l4 = struct.pack("!HHIIBBHHH", {first} + i, {PORT}, i, 0, 0x50, 2, 1024, 0, 0)
        words = struct.unpack("!10H", l4) + struct.unpack("!4H", b"".join(address)) + (6, 20)
        total = sum(words)
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        l4 = l4[:16] + struct.pack("!H", ~total & 0xffff) + l4[18:]
    else:
        l4 = struct.pack("!HHHH", {first} + i, {PORT}, 8, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, {6 if kind == STREAM else 17}, 0, *address)
    sock.sendto(ip + l4, ("{OURS}", 0))
""",
        ],
        check=True,
    )


@KINDS
@pytest.mark.parametrize("served", [True, False], ids=["served", "closed"])
def test_system_calls_of_inbound_flows(netns, tmp_path, kind, served):
    """Fewer than 50 for 1,000 flows, of the thread that reads and the one that writes: what is asked of the kernel
    is asked once."""
    if reason := unusable():
        pytest.skip(reason)
    count, output = 20_000, tmp_path / "lines"
    ip("route", "add", "192.0.2.0/24", "dev", "served")
    with contextlib.ExitStack() as stack:
        outside = stack.enter_context(made())
        ip("link", "set", "wire", "netns", outside)
        ip("link", "set", "wire", "up", netns=outside)
        ip("addr", "add", "10.77.0.9/24", "dev", "wire", netns=outside)
        server = stack.enter_context(ready((kind,))) if served else None
        wanted = f":: {server.pid if served else '?'} "
        program = stack.enter_context(Program(netns, "--track", stdout=stack.enter_context(open(output, "wb"))))
        for first in range(60000, 60100):  # its server is looked up once
            make(outside, 1, kind, first)
            until(lambda: f"{STRANGER[INET]}/{first} >" in output.read_text())
            if wanted in output.read_text().splitlines()[-1]:
                break
        words = [
            "strace",
            "-f",
            "-qq",
            "-e",
            "signal=none",
            "-e",
            "raw=all",
            "-o",
            tmp_path / "calls",
            "-p",
            str(program.pid),
        ]
        trace = stack.enter_context(Child(words))
        try:
            until(
                lambda: all(
                    "TracerPid:\t0" not in open(f"/proc/{program.pid}/task/{task}/status").read()
                    for task in os.listdir(f"/proc/{program.pid}/task")
                )
            )
            make(outside, count, kind)
            until(lambda: f"{STRANGER[INET]}/{1023 + count} >" in output.read_text(), 60)
        finally:
            trace.send_signal(signal.SIGINT)
            try:
                trace.wait(30)
            finally:
                trace.kill()
    lines = [
        line for line in output.read_text().splitlines() if re.search(rf" {STRANGER[INET]}/[1-5]?\d{{4}} > ", line)
    ]
    assert len(lines) == count
    assert [line for line in lines if wanted not in line] == []
    calls = [match.groups() for match in re.finditer(r"^(\d+) +(\w+)\(", (tmp_path / "calls").read_text(), re.M)]
    tasks = {task for task, name in calls if name == "recvmmsg"} | {str(program.pid)}
    made_by_us = collections.Counter(name for task, name in calls if task in tasks)
    assert len(tasks) == 2
    assert {"recvmmsg", "write"} <= made_by_us.keys()
    assert sum(made_by_us.values()) < 50 * count // 1000, made_by_us


@pytest.mark.parametrize("address", [OURS, "fd77::1"])
@pytest.mark.parametrize("listen", ["own family", "both"])
def test_who_accepted_is_named_in_the_end(netns, address, listen):
    """Of a server with children; it is noted where accept(2) is asked for the peer's address, and told where it is
    known when an entry began."""
    if reason := unusable():
        pytest.skip(reason)
    with open("/proc/sys/net/netfilter/nf_conntrack_timestamp", "w") as sysctl:
        sysctl.write("1")
    told, tell = os.pipe()

    def fork(socks):
        parent = os.getpid()
        for _ in range(3):
            if os.fork() == 0:
                die_with(parent)
                while True:
                    with socks[0].accept()[0] as accepted:
                        os.write(tell, os.getpid().to_bytes(4, "little"))
                        accepted.recv(1)

    sockets = (STREAM, "::", PORT, (), 0) if listen == "both" else (STREAM, address)
    with listening("bpf", events=("NEW", "DESTROY")) as conntrack, ready(sockets, act=fork) as server:
        do(server, "act")
        for _ in range(5):
            with socket.create_connection((address, PORT)) as client:
                accepted = int.from_bytes(os.read(told, 4), "little")
                port = client.getsockname()[1]
            entry = ["-f", "ipv6" if ":" in address else "ipv4", "-p", "tcp", "--sport", str(port)]
            # Until both ends have closed it: a packet that comes later makes another entry.
            until(lambda: b"TIME_WAIT" in subprocess.run(["conntrack", "-L", *entry], capture_output=True).stdout)  # noqa: B023
            subprocess.run(["conntrack", "-D", *entry], check=True, capture_output=True)
            new, end = collect_count(conntrack, lambda flow: flow.sport == port, 2)
            assert (new.type, end.type, end.peer.pid) == ("NEW", "DESTROY", accepted)
            assert accepted == new.peer.pid or server.pid == new.peer.pid or new.peer.pid is None
    os.close(told)
    os.close(tell)


@pytest.mark.parametrize("address", [OURS, "fd77::1"])
def test_who_accepted_a_new_connection_is_named_where_that_is_known(netns, address):
    """Its event is read after accept(2). A second connection with the same addresses and ports, which nobody accepts,
    is not named after who accepted the first one."""
    if reason := unusable():
        pytest.skip(reason)
    if kernel_version() < (6, 14):
        pytest.skip(f"Linux {'.'.join(map(str, kernel_version()))} does not say when it made an event; 6.14 does")
    with open("/proc/sys/net/netfilter/nf_conntrack_timestamp", "w") as sysctl:
        sysctl.write("1")
    told, tell = os.pipe()

    def fork(socks):
        parent = os.getpid()
        for _ in range(2):
            if os.fork() == 0:
                die_with(parent)
                kept = socks[0].accept()
                os.write(tell, os.getpid().to_bytes(4, "little"))
                time.sleep(60)
                del kept

    def call(port):
        client = socket.socket(INET6 if ":" in address else INET, STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.bind((address, port))
        client.connect((address, PORT))
        return client

    template = "{ev.sport} {ev.dport} {peer.pid} {peer.match}"
    with (
        Program(netns, "--track", "-p", "tcp", "-f", template) as program,
        ready((STREAM, address), act=fork) as server,
    ):
        do(server, "act")
        program.stop()
        wanted = []
        for port in (40001, 40002):
            with call(port):
                wanted.append(f"{port} {PORT} {int.from_bytes(os.read(told, 4), 'little')} bpf")
        with call(40001):
            os.kill(program.pid, signal.SIGCONT)
            lines = list(program.await_lines(3))
    os.close(told)
    os.close(tell)
    assert lines == [*wanted, f"40001 {PORT} {server.pid} listener"]


@pytest.mark.parametrize("asks", [True, False])
def test_who_accepted_before_is_not_named_for_the_next(netns, asks):
    """The same addresses and ports once more, and another server that accepts nothing."""
    if reason := unusable():
        pytest.skip(reason)

    def accept(socks):
        socks[0].accept()[0].close()

    def call():
        with socket.socket(INET, STREAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.bind((OURS, 40001))
            client.connect((OURS, PORT))
            [flow] = collect_count(conntrack, lambda flow: flow.sport == 40001, 1)
            return flow

    options = ((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),)
    with listening("bpf") as conntrack:
        with ready((STREAM, OURS, PORT, options), act=accept) as first:
            first.say("act")
            assert call().peer.pid in (first.pid, None)  # it may have been closed already
            first.hear()
            do(first, "close")
        with ready((STREAM, OURS, PORT, options), act=accept) as second:
            if asks:
                second.say("act")
            for _ in range(3):
                assert call().peer.pid in (second.pid, None)
