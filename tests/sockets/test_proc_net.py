"""Sockets are found in the tables of /proc/net, whole or broken."""

import contextlib
import ctypes
import os
import socket
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast.sockets.proc_net import ProcNet
from support.fake_proc import child

TCP, UDP, ICMP, UDPLITE, RAW = 6, 17, 1, 136, 253
EXACT, LISTENER, WILDCARD, PROTOCOL = 1, 2, 3, 4


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def asked(net, sock, proto, remote, local=None):
    """The answer for the flow from `sock` to `remote`; local address as given, or as the socket has it."""
    address, port = sock.getsockname()[:2]
    return net.find(proto, local or address.removeprefix("::ffff:"), port, remote[0].removeprefix("::ffff:"), remote[1])


def expect(found, sock, kind, **more):
    assert found is not None
    assert {**found, **more} == found
    assert (found["inode"], found["kind"], found["uid"]) == (inode(sock), kind, os.geteuid())


@pytest.fixture
def net():
    return ProcNet()


@pytest.mark.parametrize(
    ("family", "host", "dialled"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::ffff:127.0.0.1"),
    ],
)
def test_tcp_both_ends_and_the_accept_queue(net, family, host, dialled):
    with socket.socket(family) as listener, socket.socket(family) as client:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, 0))
        listener.listen()
        client.connect((dialled, listener.getsockname()[1]))
        here, there = client.getsockname()[:2], client.getpeername()[:2]
        plain = dialled.removeprefix("::ffff:")
        expect(asked(net, client, TCP, there), client, EXACT, state=1, ambiguous=False)
        expect(net.find(TCP, plain, there[1], plain, here[1]), listener, LISTENER)
        accepted, _ = listener.accept()
        with accepted:
            expect(net.find(TCP, plain, there[1], plain, here[1]), accepted, EXACT)
            assert inode(accepted) != inode(client)
        expect(net.find(TCP, plain, there[1], plain, 1), listener, LISTENER, state=10)


def test_time_wait_is_nobody_and_not_root(net):
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    here, there = client.getsockname(), client.getpeername()
    client.close()
    accepted.close()
    end = time.monotonic() + 5
    while (found := net.find(TCP, *here, *there))["state"] != 6:
        assert time.monotonic() < end
    assert found["inode"] is None and found["uid"] is None and found["kind"] == EXACT
    listener.close()


@pytest.mark.parametrize(
    ("family", "bind", "remote", "local"),
    [
        (socket.AF_INET, None, "127.0.0.1", "127.0.0.1"),  # never bound
        (socket.AF_INET, "0.0.0.0", "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, None, "::1", "::1"),
        (socket.AF_INET6, "::", "::1", "::1"),
        (socket.AF_INET6, None, "::ffff:127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("proto", [UDP, UDPLITE])
def test_datagram_sockets_of_every_shape(net, proto, family, bind, remote, local):
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM, proto)
    except OSError:
        pytest.skip("no such protocol in this kernel")
    with sock:
        if bind:
            sock.bind((bind, 0))
        sock.sendto(b"x", (remote, 9))
        expect(asked(net, sock, proto, (remote, 9), local), sock, WILDCARD, ambiguous=False)
        sock.connect((remote, 9))
        expect(asked(net, sock, proto, (remote, 9), local), sock, EXACT, ambiguous=False)
        assert asked(net, sock, proto, (remote, 10), local) is None


def test_most_specific_udp_socket_wins(net):
    any_, bound, connected = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with any_, bound, connected, six:
        for sock in (any_, bound, connected, six):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        six.bind(("::", 0))
        port = six.getsockname()[1]
        expect(net.find(UDP, "127.0.0.1", port, "127.0.0.1", 5), six, WILDCARD)
        any_.bind(("", port))
        expect(net.find(UDP, "127.0.0.1", port, "127.0.0.1", 5), any_, WILDCARD, ambiguous=False)
        expect(net.find(UDP, "::1", port, "::1", 5), six, WILDCARD)
        bound.bind(("127.0.0.1", port))
        expect(net.find(UDP, "127.0.0.1", port, "127.0.0.1", 5), bound, WILDCARD, ambiguous=False)
        expect(net.find(UDP, "127.0.0.2", port, "127.0.0.1", 5), any_, WILDCARD)
        connected.bind(("127.0.0.1", port))
        connected.connect(("127.0.0.1", 5))
        expect(net.find(UDP, "127.0.0.1", port, "127.0.0.1", 5), connected, EXACT)


def test_reuseport_group_is_ambiguous(net):
    with contextlib.ExitStack() as stack:
        for kind, proto, expected in ((socket.SOCK_DGRAM, UDP, WILDCARD), (socket.SOCK_STREAM, TCP, LISTENER)):
            port, inodes = 0, []
            for _ in range(3):
                sock = stack.enter_context(socket.socket(socket.AF_INET, kind))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(("127.0.0.1", port))
                port = sock.getsockname()[1]
                if kind == socket.SOCK_STREAM:
                    sock.listen()
                inodes.append(inode(sock))
            found = net.find(proto, "127.0.0.1", port, "127.0.0.1", 9)
            assert found["ambiguous"] and found["inode"] in inodes and found["kind"] == expected


@pytest.mark.root
def test_raw_sockets_by_protocol(net):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, RAW) as one:
        expect(net.find(RAW, "127.0.0.1", 0, "127.0.0.1", 0), one, PROTOCOL, ambiguous=False)
        assert net.find(RAW + 1, "127.0.0.1", 0, "127.0.0.1", 0) is None
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, RAW) as two:
            assert net.find(RAW, "127.0.0.1", 0, "127.0.0.1", 0)["ambiguous"]
            two.connect(("127.0.0.1", 0))
            expect(net.find(RAW, "127.0.0.1", 0, "127.0.0.1", 0), two, PROTOCOL)
            expect(net.find(RAW, "127.0.0.1", 0, "127.0.0.9", 0), one, PROTOCOL, ambiguous=False)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, RAW) as six:
        net = ProcNet()
        expect(net.find(RAW, "::1", 0, "::1", 0), six, PROTOCOL)
        assert net.find(RAW, "127.0.0.1", 0, "127.0.0.1", 0) is None
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, ICMP) as icmp:
        found = net.find(ICMP, "127.0.0.1", 4711, "127.0.0.1", 0)
        assert found["inode"] == inode(icmp) or found["ambiguous"]


@pytest.mark.root
def test_ping_sockets_and_another_network_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    told, tell = os.pipe()

    def work():
        assert libc.unshare(0x40000000) == 0
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
            file.write("0 0")
        for family, proto, host in ((socket.AF_INET, 1, "127.0.0.1"), (socket.AF_INET6, 58, "::1")):
            sock = socket.socket(family, socket.SOCK_DGRAM, proto)
            kept.append(sock)
            sock.sendto(b"\x08\0\0\0\0\0\0\0" if proto == 1 else b"\x80\0\0\0\0\0\0\0", (host, 1025))
            os.write(tell, b"%d %d\n" % (inode(sock), sock.getsockname()[1]))

    kept = []
    with child(work) as pid:
        lines = b""
        while lines.count(b"\n") < 2:
            lines += os.read(told, 100)
        (four, id4), (six, id6) = ((int(n) for n in line.split()) for line in lines.splitlines())
        net, here = ProcNet(f"/proc/{pid}/net"), ProcNet()
        found = net.find(ICMP, "127.0.0.1", id4, "127.0.0.1", 0)
        assert (found["inode"], found["kind"]) == (four, WILDCARD)
        assert net.find(ICMP, "127.0.0.1", id4 ^ 1, "127.0.0.1", 0) is None
        assert net.find(58, "::1", id6, "::1", 0)["inode"] == six
        assert (here.find(58, "::1", id6, "::1", 0) or {}).get("inode") != six
    os.close(told)
    os.close(tell)


def test_one_reading_serves_the_batch(net):
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
    when = time.monotonic_ns()
    for client in clients:
        found = net.find(TCP, *client.getsockname(), *client.getpeername(), when=when)
        assert (found["inode"], found["kind"]) == (inode(client), EXACT)
    assert net.loads <= 2
    # What came after the reading makes it read once more, and only once.
    late = socket.create_connection(listener.getsockname())
    before, when = net.loads, time.monotonic_ns()
    for _ in range(10):
        assert net.find(TCP, *late.getsockname(), *late.getpeername(), when=when)["inode"] == inode(late)
        assert net.find(TCP, "127.0.0.1", 1, "127.0.0.1", 1, when=when) is None
    assert net.loads <= before + 2
    for sock in (late, listener, *clients):
        sock.close()


def test_old_answers_are_not_believed():
    net = ProcNet(max_age=0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))
        port = sock.getsockname()[1]
        assert net.find(UDP, "127.0.0.1", port, "127.0.0.1", 9)
    time.sleep(0.06)
    assert net.find(UDP, "127.0.0.1", port, "127.0.0.1", 9) is None


def test_too_early_to_read_again_is_told():
    net = ProcNet(min_interval=60)
    assert net.find(UDP, "127.0.0.1", 1, "127.0.0.1", 1) is None
    with pytest.raises(BlockingIOError):
        net.find(UDP, "127.0.0.1", 1, "127.0.0.1", 1)


HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = (
    "   0: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 24680 2 "
    "0000000000000000 0\n"
)


@pytest.mark.skipif(os.sys.byteorder != "little", reason="recorded on a little-endian machine")
def test_recorded_tables(tmp_path):
    (tmp_path / "udp").write_text(HEADER + LINE)
    (tmp_path / "udp6").write_text(
        HEADER
        + (
            "  12: 00000000000000000000000000000000:14E9 00000000000000000000000000000000:0000 07 "
            "00000000:00000000 00:00000000 00000000   105        0 13579 2 0000000000000000 0\n"
            "  13: 0000000000000000FFFF00000100007F:1234 0000000000000000FFFF00000200007F:0050 01 "
            "00000000:00000000 00:00000000 00000000  1000        0 4294967297 2 0000000000000000 0\n"
        )
    )
    net = ProcNet(tmp_path)
    assert net.find(UDP, "127.0.0.1", 53, "127.0.0.9", 999) == {
        "inode": 24680,
        "uid": 101,
        "kind": WILDCARD,
        "state": 7,
        "ambiguous": False,
    }
    assert net.find(UDP, "127.0.0.2", 53, "127.0.0.9", 999) is None
    assert net.find(UDP, "224.0.0.251", 5353, "10.0.0.1", 5353)["inode"] == 13579
    assert net.find(UDP, "ff02::fb", 5353, "fe80::1", 5353)["uid"] == 105
    assert net.find(UDP, "127.0.0.1", 0x1234, "127.0.0.2", 0x50)["inode"] == 4294967297
    assert net.find(TCP, "127.0.0.1", 1, "127.0.0.2", 2) is None
    assert net.sizes()["udp6"][0] == 2 and net.sizes()["tcp"][0] == 0


def test_chunks_do_not_cut_lines(tmp_path):
    count = 20000
    lines = [LINE.replace("0035", f"{n:04X}").replace("24680", str(10**6 + n)) for n in range(1, count + 1)]
    (tmp_path / "udp").write_text(HEADER + "".join(lines))
    net, when = ProcNet(tmp_path), 1
    when = time.monotonic_ns()
    for n in range(1, count + 1):
        assert net.find(UDP, "127.0.0.1", n, "127.0.0.9", 999, when=when)["inode"] == 10**6 + n
    assert net.sizes()["udp"][0] == count and net.loads == 2


def test_table_that_cannot_be_read(tmp_path):
    (tmp_path / "tcp").mkdir()
    with pytest.raises(IsADirectoryError):
        ProcNet(tmp_path).find(TCP, "127.0.0.1", 1, "127.0.0.1", 1)
    with pytest.raises(FileNotFoundError):
        ProcNet(tmp_path / "none")


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=600),
        st.lists(
            st.one_of(
                st.just(LINE),
                st.integers(0, len(LINE)).map(lambda n: LINE[:n] + "\n"),
                st.integers(0, len(LINE)).map(lambda n: LINE[n:]),
                st.text("0:AF \n", max_size=40),
            )
        ).map(lambda lines: "".join(lines).encode()),
    ),
    st.sampled_from(["tcp", "udp6", "raw", "icmp6"]),
)
def test_broken_tables_never_crash(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("net")
    (path / name).write_bytes(content)
    net = ProcNet(path)
    for proto in (TCP, UDP, RAW, ICMP):
        net.find(proto, "127.0.0.1", 53, "127.0.0.9", 1)
        net.find(proto if proto != ICMP else 58, "::", 0, "::", 0)
    (path / name).unlink()
    path.rmdir()


def test_long_line_is_passed_over(tmp_path):
    (tmp_path / "udp").write_text(HEADER + "x" * 600000 + "\n" + LINE)
    assert ProcNet(tmp_path).find(UDP, "127.0.0.1", 53, "127.0.0.9", 999)["inode"] == 24680
