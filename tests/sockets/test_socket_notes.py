"""The kernel's notes of socket owners, compared with real sockets of real processes in namespaces of their own."""

import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("nfct_fast.sockets.socket_notes")
from nfct_fast.sockets.socket_notes import SocketNotes
from support.paths import SUPPORT
from support.socket_notes import (  # noqa: F401 -- netns, owners and senders are fixtures
    SEND,
    answers,
    compiled,
    namespace,
    netns,
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
MODES = ["tcp", "udp", "cudp", "udp6", "mapped", "tcp6", "cudp6"]


@pytest.mark.parametrize("mode", MODES)
def test_every_socket_of_a_fast_sender_is_named_after_its_end(owners, netns, senders, mode):
    process = netns.start(senders, "ports", mode, 2000)
    wanted = tuples(mode, process.communicate(timeout=60)[0])
    assert len(wanted) > 1500
    assert answers(owners, wanted, process.pid, netns.cookie) == (0, 0)
    owner = owners.find(*next(iter(wanted)), netns.cookie)
    assert (owner["uid"], owner["gid"], owner["comm"]) == (os.getuid(), os.getgid(), "senders")
    assert owner["netns_cookie"] == netns.cookie and owner["hook"] == (
        "send" if mode in ("udp", "udp6", "mapped") else "connect"
    )
    assert 0 <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) - owner["time"] < 60e9


def test_four_senders_at_once_on_busy_cores(owners, netns, senders):
    busy = [
        subprocess.Popen([sys.executable, "-c", "import time\nend = time.time() + 60\nwhile time.time() < end: pass"])
        for _ in range(os.cpu_count())
    ]
    try:
        for mode in ("tcp", "udp", "cudp", "udp6", "mapped"):
            processes = [netns.start(senders, "ports", mode, 2000) for _ in range(4)]
            for process in processes:
                wanted = tuples(mode, process.communicate(timeout=120)[0])
                assert answers(owners, wanted, process.pid, netns.cookie) == (0, 0), mode
    finally:
        for process in busy:
            process.kill()
            process.wait()


RAW = """
import socket, struct, sys
echo = struct.pack("!BBHHH", 8, 0, 0xf7ff - int(sys.argv[1]), int(sys.argv[1]), 0)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.sendto(echo, ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253); s.sendto(b"raw", ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 253); s.sendto(b"raw", ("::1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
s.sendto(struct.pack("!4H", 7, 9, 8, 0), ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
s.sendto(struct.pack("!HHIIHHHH", 7, 9, 0, 0, 0x5002, 0, 0, 0), ("127.0.0.1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.sendto(echo, ("127.0.0.1", 0))
print(s.getsockname()[1])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
s.sendto(b"\\x80" + bytes(7), ("::1", 0)); print(s.getsockname()[1])
"""


def test_ping_and_raw_sockets(owners, netns):
    netns.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    process = netns.script(RAW, 4711)
    ping, ping6 = map(int, process.communicate(timeout=60)[0].split())
    wanted = {
        (1, "127.0.0.1", 4711, "127.0.0.1", 8 << 8),
        (253, "127.0.0.1", 0, "127.0.0.1", 0),
        (253, "::1", 0, "::1", 0),
        (17, "127.0.0.1", 7, "127.0.0.1", 9),
        (6, "127.0.0.1", 7, "127.0.0.1", 9),
        (1, "127.0.0.1", ping, "127.0.0.1", 8 << 8),
        (58, "::1", ping6, "::1", 128 << 8),
    }
    for each in wanted:
        owner = owners.find(*each, netns.cookie)
        assert owner and owner["pid"] == process.pid and owner["hook"] == "create", (each, owner)
    # A generic protocol has no ports in conntrack, whatever a caller's tuple holds there.
    assert owners.find(253, "127.0.0.1", 5, "127.0.0.1", 6, netns.cookie)["pid"] == process.pid


def test_mptcp(owners, netns):
    process = netns.script("""
import socket
try: s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError: raise SystemExit("none")
l = socket.create_server(("127.0.0.1", 0)); s.connect(l.getsockname()); print(s.getsockname()[1], l.getsockname()[1])
""")
    out = process.communicate(timeout=60)[0].split()
    if not out:
        pytest.skip("this kernel has no MPTCP")
    assert owners.find(6, "127.0.0.1", int(out[0]), "127.0.0.1", int(out[1]), netns.cookie)["pid"] == process.pid


def test_sockets_only_io_uring_holds(owners, netns, tmp_path):
    program = compiled(SUPPORT / "io_uring.c", tmp_path)
    process = netns.start(program)
    out = process.communicate(timeout=60)[0].split()
    if process.returncode == 77:
        pytest.skip("io_uring cannot make sockets here: " + " ".join(out))
    assert process.returncode == 0
    udp, tcp, port = map(int, out)
    assert owners.find(17, "127.0.0.1", udp, "127.0.0.1", 9, netns.cookie)["pid"] == process.pid
    assert owners.find(6, "127.0.0.1", tcp, "127.0.0.1", port, netns.cookie)["pid"] == process.pid


SERVER = """
import socket, sys
l = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET,
                         dualstack_ipv6=sys.argv[1] == "::")
u = socket.socket(l.family, socket.SOCK_DGRAM); u.bind((sys.argv[1], 0))
cookie = lambda sock: int.from_bytes(sock.getsockopt(1, 57, 8), "little")
print(l.getsockname()[1], u.getsockname()[1], cookie(l), cookie(u))
c = l.accept()[0]
print(cookie(c))
input()
"""


@pytest.mark.parametrize(
    "address, local", [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")]
)
def test_servers_and_what_they_accept(owners, netns, address, local):
    server = netns.script(SERVER, address)
    port, udp, *cookies = map(int, server.stdout.readline().split())
    client = netns.script(
        "import socket, sys; s = socket.create_connection((sys.argv[1], sys.argv[2])); "
        "print(s.getsockname()[1]); input()",
        local,
        port,
    )
    source = int(client.stdout.readline())
    cookie = int(server.stdout.readline())
    try:
        assert (owners.find_cookie(cookie)["pid"], owners.find_cookie(cookie)["hook"]) == (server.pid, "accept")
        for each in cookies:
            assert (owners.find_cookie(each)["pid"], owners.find_cookie(each)["hook"]) == (server.pid, "bind")
        assert owners.find(6, local, source, local, port, netns.cookie)["pid"] == client.pid
        accepted = owners.find(6, local, port, local, source, netns.cookie)
        assert (accepted["pid"], accepted["hook"], accepted["cookie"]) == (server.pid, "accept", cookie)
        for proto, where, peer in ((6, port, 1), (17, udp, 1)):  # peers it has not met
            assert (
                owners.find(proto, local, where, local, peer, netns.cookie) is None
            )  # who has a port has not therefore sent
    finally:
        for process in (client, server):
            process.communicate("\n", timeout=60)


LATE = """
import socket
l = socket.create_server(("127.0.0.1", 0))
print(l.getsockname()[1]); input()
c = l.accept()[0]
print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]); input()
"""
EARLY = """
import socket, sys, time
s = socket.socket()
if sys.argv[1] == "fast open":
    s.setblocking(False)
    s.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", int(sys.argv[2])))
else:
    s.connect(("127.0.0.1", int(sys.argv[2]))); s.shutdown(socket.SHUT_WR)
    while s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 5:  # FIN-WAIT-2: the other end has the FIN
        time.sleep(0.001)
port = s.getsockname()[1]
if sys.argv[1] == "closed":
    s.close()
print(port); input()
"""
SYN_RECV, CLOSE_WAIT = 3, 8


@pytest.mark.parametrize("peer, state", [("half-closed", CLOSE_WAIT), ("closed", CLOSE_WAIT), ("fast open", SYN_RECV)])
def test_connections_whose_peer_is_ahead_of_accept(owners, netns, peer, state):
    """A slow server accepts what has ended already; one with TCP Fast Open what is not established yet."""
    if peer == "fast open":
        netns.run("sysctl", "-qw", "net.ipv4.tcp_fastopen=0x607")  # of client and every listener, without cookies
        netns.run("nft", """table inet t { chain c { type filter hook output priority 0;
                            tcp flags & (syn | ack) == syn | ack drop; }; }""")  # fmt: skip
    server = netns.script(LATE)
    port = int(server.stdout.readline())
    client = netns.script(EARLY, peer, port)
    source = int(client.stdout.readline())
    print(file=server.stdin, flush=True)
    try:
        assert int(server.stdout.readline()) == state
        accepted = owners.find(6, "127.0.0.1", port, "127.0.0.1", source, netns.cookie)
        assert (accepted["pid"], accepted["hook"]) == (server.pid, "accept")
    finally:
        for process in (client, server):
            process.communicate("\n", timeout=60)


@pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1"])
def test_equal_tuples_in_two_namespaces(owners, netns, bind):
    wanted = (17, "127.0.0.1", 5555, "127.0.0.1", 9)
    with namespace() as other:
        pids = {}
        for space in (netns, other):
            process = space.script(SEND, bind)
            process.communicate(timeout=60)
            pids[space.cookie] = process.pid
        for cookie, pid in pids.items():
            owner = owners.find(*wanted, cookie)
            assert (owner["pid"], owner["match"]) == (pid, "exact")
        assert owners.find(17, "127.0.0.9", 5555, "127.0.0.1", 9, netns.cookie) is None  # the source must be right


PASSED = """
import array, os, socket, sys
kind, port = sys.argv[1], int(sys.argv[2])
a, b = socket.socketpair()
if os.fork() == 0:
    fd = array.array("i", b.recvmsg(1, socket.CMSG_SPACE(4))[1][0][2])[0]
    s = socket.socket(fileno=fd)
    if kind == "sendto": s.sendto(b"", ("127.0.0.1", port))
    else:
        s.connect(("127.0.0.1", port))
        if kind == "connect-udp": s.send(b"")
    print(s.getsockname()[1], os.getpid()); sys.stdout.flush(); os._exit(0)
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "connect-tcp" else socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
os.wait()
"""


@pytest.mark.parametrize("kind, proto", [("connect-tcp", 6), ("connect-udp", 17), ("sendto", 17)])
def test_who_connects_or_sends_wins_over_who_made_and_bound(owners, netns, kind, proto):
    server = netns.script(SERVER, "127.0.0.1")
    ports = dict(zip((6, 17), map(int, server.stdout.readline().split())))
    maker = netns.script(PASSED, kind, ports[proto])
    source, pid = map(int, maker.communicate(timeout=60)[0].split())
    owner = owners.find(proto, "127.0.0.1", source, "127.0.0.1", ports[proto], netns.cookie)
    server.kill()
    server.communicate()
    assert owner["pid"] == pid != maker.pid


def test_the_newest_owner_of_a_reused_tuple_and_that_there_was_another(owners, netns):
    pids = []
    for _ in range(2):
        process = netns.script(SEND, "127.0.0.1")
        process.communicate(timeout=60)
        pids.append(process.pid)
    owner = owners.find(17, "127.0.0.1", 5555, "127.0.0.1", 9, netns.cookie)
    assert owner["pid"] == pids[1] and 0 < owner["other_time"] < owner["time"]


def test_destination_any_is_this_host(owners, netns):
    process = netns.script("""
import socket
for to in ("0.0.0.0", 9), ("::", 9):
    s = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"", to); print(s.getsockname()[1])
""")
    four, six = map(int, process.communicate(timeout=60)[0].split())
    assert owners.find(17, "127.0.0.1", four, "127.0.0.1", 9, netns.cookie)["pid"] == process.pid
    assert owners.find(17, "::1", six, "::1", 9, netns.cookie)["pid"] == process.pid


def test_a_connected_socket_that_also_sends_elsewhere(owners, netns):
    process = netns.script("""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("127.0.0.1", 9)); s.sendto(b"", ("127.0.0.1", 10))
try: s.send(b"")
except ConnectionRefusedError: s.send(b"")
print(s.getsockname()[1])
""")
    port = int(process.communicate(timeout=60)[0])
    for peer in (9, 10):
        assert owners.find(17, "127.0.0.1", port, "127.0.0.1", peer, netns.cookie)["pid"] == process.pid


def test_a_full_ring_forgets_the_oldest_and_names_nobody_else(netns, senders):
    with SocketNotes(notes=1024) as small:
        process = netns.start(senders, "ports", "udp", 4000)
        out = process.communicate(timeout=60)[0]
        peer, *ports = map(int, out.split())
        assert answers(small, tuples("udp", " ".join(map(str, [peer, *ports[-300:]]))), process.pid, netns.cookie) == (
            0,
            0,
        )
        lost, wrong = answers(small, tuples("udp", out), process.pid, netns.cookie)
        assert lost > 2500 and wrong == 0
        assert small.counters()["replaced"] >= 2900


def test_a_reader_never_sees_a_torn_record(netns, senders):
    """Two processes overwrite a small ring as fast as they can; whatever is found is of the one that sent there."""
    with SocketNotes(notes=1) as small:
        # They send until enough was read, however fast this machine is just now.
        processes = {
            port: netns.start("sh", "-c", f"exec {senders} ports udp 10000000 {port} >/dev/null") for port in (901, 902)
        }
        seen = wrong = 0
        try:
            while seen < 2_000:
                assert all(process.poll() is None for process in processes.values())
                for source in range(32768, 61000):
                    for peer, process in processes.items():
                        owner = small.find(17, "127.0.0.1", source, "127.0.0.1", peer, netns.cookie)
                        if owner:
                            seen += 1
                            wrong += owner["pid"] != process.pid or owner["netns_cookie"] != netns.cookie
        finally:
            for process in processes.values():
                process.kill()
                process.communicate(timeout=120)
        assert wrong == 0
