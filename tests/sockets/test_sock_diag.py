"""Each kind of socket is looked up by its tuple; the truth is the socket itself."""

import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from support.hooks import SockDiag
from support.netns import inside, ip, ip6_address

TCP, UDP, UDPLITE = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE
V4, V6 = socket.AF_INET, socket.AF_INET6
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
SO_COOKIE = 57
ANOTHER_UID = 4242
ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LISTEN = 1, 2, 4, 5, 6, 10
pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def namespace():
    with inside() as name:
        yield name


@pytest.fixture
def diag():
    with SockDiag() as diag:
        yield diag


def netns_cookie(diag):
    with socket.socket(fileno=os.dup(diag.fileno())) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE


def truth(sock):
    (cookie,) = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))
    status = os.fstat(sock.fileno())
    return {"inode": status.st_ino, "uid": status.st_uid, "cookie": cookie}


def is_socket(found, sock, kind, ambiguous=False):
    assert found is not None
    assert {key: found[key] for key in ("inode", "uid", "cookie")} == truth(sock)
    assert (found["kind"], found["ambiguous"]) == (kind, ambiguous)
    assert found["cgroup_id"]


@contextmanager
def uid(number):
    """Sockets made in the block belong to another user."""
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


def opened(family, kind=DGRAM, address=None, proto=0, **options):
    sock = socket.socket(family, kind, proto)
    sock.settimeout(5)
    for name, value in options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    if address is not None:
        sock.bind(address)
    return sock


def port(sock):
    return sock.getsockname()[1]


LOOPBACK = {V4: "127.0.0.1", V6: "::1"}


@pytest.mark.parametrize("proto", [UDP, UDPLITE])
@pytest.mark.parametrize("family, address", [(V4, "127.0.0.1"), (V6, "::1"), (V6, "::ffff:127.0.0.1")])
@pytest.mark.parametrize("shape", ["connected", "never bound", "wildcard", "bound"])
def test_udp(diag, proto, family, address, shape):
    seen = address.removeprefix("::ffff:")
    try:
        with uid(ANOTHER_UID):
            sock = opened(family, DGRAM, None, proto)
    except OSError as error:
        assert proto == UDPLITE, error
        pytest.skip("no UDP-Lite in this kernel")
    with sock:
        if shape == "connected":
            sock.connect((address, 9))
        elif shape == "never bound":
            sock.sendto(b"", (address, 9))
        elif shape == "wildcard":
            sock.bind(("::" if family == V6 else "", 0))
        else:
            sock.bind((address, 0))
        kind = "exact" if shape == "connected" else "wildcard"
        is_socket(diag.find(proto, seen, port(sock), seen, 9), sock, kind)
        assert truth(sock)["uid"] == ANOTHER_UID
        if shape == "connected":
            assert diag.find(proto, seen, port(sock), seen, 10) is None
        gone = port(sock)
    assert diag.find(proto, seen, gone, seen, 9) is None


def test_mapped_tuple_is_ipv4(diag):
    with opened(V4) as sock:
        sock.connect(("127.0.0.1", 9))
        is_socket(diag.find(UDP, "::ffff:127.0.0.1", port(sock), "::ffff:127.0.0.1", 9), sock, "exact")


def test_ipv6_only_socket_has_no_ipv4(diag):
    with socket.socket(V6, DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::", 0))
        assert diag.find(UDP, "127.0.0.1", port(sock), "127.0.0.1", 9) is None
        is_socket(diag.find(UDP, "::1", port(sock), "::1", 9), sock, "wildcard")
        with opened(V4, address=("", port(sock))) as other:
            is_socket(diag.find(UDP, "127.0.0.1", port(sock), "127.0.0.1", 9), other, "wildcard")


@pytest.mark.parametrize("option", ["SO_REUSEPORT", "SO_REUSEADDR"])
@pytest.mark.parametrize("family", [V4, V6])
def test_udp_sockets_that_share_a_port_are_ambiguous(diag, option, family):
    with opened(family, address=(LOOPBACK[family], 0), **{option: 1}) as first:
        ask = (UDP, LOOPBACK[family], port(first), LOOPBACK[family], 9)
        is_socket(diag.find(*ask), first, "wildcard")
        with opened(family, address=(LOOPBACK[family], port(first)), **{option: 1}) as second:
            found = diag.find(*ask)
            assert found["ambiguous"] and found["kind"] == "wildcard"
            assert found["inode"] in (truth(first)["inode"], truth(second)["inode"])
            assert {each["inode"] for each in diag.candidates(*ask)} == {truth(first)["inode"], truth(second)["inode"]}
        is_socket(diag.find(*ask), first, "wildcard")


def test_udp_wildcard_and_dual_stack_rivals(diag):
    """A socket bound to the address is found first, but one bound to all addresses can send from it as well."""
    with opened(V4, address=("127.0.0.1", 0), SO_REUSEADDR=1) as narrow:
        ask = (UDP, "127.0.0.1", port(narrow), "127.0.0.1", 9)
        with opened(V6, address=("::", port(narrow)), SO_REUSEADDR=1):
            is_socket(diag.find(*ask), narrow, "wildcard", ambiguous=True)
        is_socket(diag.find(*ask), narrow, "wildcard")


def test_more_rivals_than_are_told_apart(diag):
    socks = [opened(V4, SO_REUSEPORT=1)]
    socks[0].bind(("127.0.0.1", 0))
    for _ in range(40):
        socks.append(opened(V4, address=("127.0.0.1", port(socks[0])), SO_REUSEPORT=1))
    ask = (UDP, "127.0.0.1", port(socks[0]), "127.0.0.1", 9)
    assert diag.find(*ask)["ambiguous"]
    assert {each["inode"] for each in diag.candidates(*ask)} == {truth(sock)["inode"] for sock in socks}
    for sock in socks:
        sock.close()


def test_sender_from_a_multicast_socket_is_a_candidate(diag):
    with opened(V4, address=("239.1.2.3", 0)) as sock:
        ask = (UDP, "127.0.0.1", port(sock), "127.0.0.1", 9)
        assert diag.find(*ask) is None
        [found] = diag.candidates(*ask)
        assert found["inode"] == truth(sock)["inode"]


@contextmanager
def connection(family, address, server_family=None):
    """A listener, a client and the accepted socket; the three belong to different users."""
    server_family = server_family or family
    with uid(ANOTHER_UID):
        listener = opened(server_family, STREAM, ("::" if server_family != family else address, 0))
        listener.listen()
    with uid(ANOTHER_UID + 1):
        client = opened(family, STREAM)
    client.connect((address, port(listener)))
    with listener, client:
        yield listener, client


@pytest.mark.parametrize(
    "family, address, server",
    [(V4, "127.0.0.1", V4), (V6, "::1", V6), (V4, "127.0.0.1", V6), (V6, "::ffff:127.0.0.1", V6)],
)
def test_tcp(diag, family, address, server):
    seen = address.removeprefix("::ffff:")
    with connection(family, address, server) as (listener, client):
        ends = (seen, port(client), seen, port(listener))
        back = (seen, port(listener), seen, port(client))
        is_socket(diag.find(TCP, *ends), client, "exact")
        assert diag.find(TCP, *ends)["state"] == ESTABLISHED

        queued = diag.find(TCP, *back)
        assert queued["inode"] is None and queued["kind"] == "exact" and queued["state"] == ESTABLISHED
        assert queued["uid"] in (None, ANOTHER_UID)
        is_socket(diag.find(TCP, *back, listener=True), listener, "listener")
        assert diag.find(TCP, *ends, listener=True) is None

        accepted, _ = listener.accept()
        with accepted:
            is_socket(diag.find(TCP, *back), accepted, "exact")
        is_socket(diag.find(TCP, seen, port(listener), seen, 1), listener, "listener")


def test_tcp_without_socket(diag):
    assert diag.find(TCP, "127.0.0.1", 1, "127.0.0.1", 2) is None
    assert diag.find(TCP, "127.0.0.1", 1, "127.0.0.1", 2, listener=True) is None


def test_bound_tcp_socket_that_does_not_listen(diag):
    with opened(V4, STREAM, ("127.0.0.1", 0)) as sock:
        assert diag.find(TCP, "127.0.0.1", port(sock), "127.0.0.1", 2) is None


def test_tcp_listeners_that_share_a_port_are_ambiguous(diag):
    with opened(V4, STREAM, ("127.0.0.1", 0), SO_REUSEPORT=1) as first:
        first.listen()
        ask = (TCP, "127.0.0.1", port(first), "127.0.0.1", 9)
        with opened(V4, STREAM, ("127.0.0.1", port(first)), SO_REUSEPORT=1) as second:
            second.listen()
            assert diag.find(*ask)["ambiguous"]
            assert diag.find(*ask, listener=True)["ambiguous"]
            # A connection has one socket, however many listen.
            with opened(V4, STREAM) as client:
                client.connect(("127.0.0.1", port(first)))
                is_socket(diag.find(TCP, "127.0.0.1", port(client), "127.0.0.1", port(first)), client, "exact")
        is_socket(diag.find(*ask), first, "listener")


def test_narrower_listener_wins_without_doubt(diag):
    with opened(V4, STREAM, ("127.0.0.2", 0), SO_REUSEPORT=1) as narrow:
        narrow.listen()
        with opened(V4, STREAM, ("", port(narrow)), SO_REUSEPORT=1) as wide:
            wide.listen()
            is_socket(diag.find(TCP, "127.0.0.2", port(narrow), "127.0.0.1", 9), narrow, "listener")
            is_socket(diag.find(TCP, "127.0.0.3", port(narrow), "127.0.0.1", 9), wide, "listener")


def test_syn_sent(diag, namespace):
    ip("addr", "add", "10.77.0.1/24", "dev", "lo", netns=namespace)
    with opened(V4, STREAM, ("10.77.0.1", 0)) as listener:
        listener.listen(0)
        fill = []
        try:
            # A full accept queue leaves further connections without an answer.
            for _ in range(4):
                sock = opened(V4, STREAM)
                sock.setblocking(False)
                sock.connect_ex(("10.77.0.1", port(listener)))
                fill.append(sock)
            time.sleep(0.1)
            states = set()
            for sock in fill:
                found = diag.find(TCP, "10.77.0.1", port(sock), "10.77.0.1", port(listener))
                is_socket(found, sock, "exact")
                states.add(found["state"])
            assert SYN_SENT in states
        finally:
            for sock in fill:
                sock.close()


def until_state(diag, ends, state):
    """The other end acknowledges a FIN after 40 ms."""
    for _ in range(200):
        found = diag.find(TCP, *ends)
        if found["state"] == state:
            return found
        time.sleep(0.01)
    pytest.fail(f"state {found['state']} instead of {state}")


def test_time_wait_has_no_owner(diag):
    with uid(ANOTHER_UID), opened(V4, STREAM, ("127.0.0.1", 0)) as listener:
        listener.listen()
        client = opened(V4, STREAM)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        ends = ("127.0.0.1", port(client), "127.0.0.1", port(listener))
        cookie = truth(client)["cookie"]
        client.close()
        found = until_state(diag, ends, FIN_WAIT2)  # which lasts until the other side closes too
        assert found["inode"] is None and found["uid"] in (None, ANOTHER_UID)
        accepted.close()
        found = until_state(diag, ends, TIME_WAIT)
        assert found["inode"] is None and found["uid"] is None and found["cgroup_id"] is None
        assert found["cookie"] == cookie


CLOSER = """
import os, socket, sys
os.seteuid(4242)
s = socket.socket()
os.seteuid(0)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.setblocking(False)
try:
    while True:
        s.send(bytes(65536))
except BlockingIOError:
    pass
print(s.getsockname()[1])
"""


def test_orphan_whose_process_is_gone(diag):
    """Closed with data unsent, the socket lives on without inode; uid and cgroup are still reported if known."""
    with opened(V4, STREAM, ("127.0.0.1", 0)) as listener:
        listener.listen()
        out = subprocess.run(
            [sys.executable, "-c", CLOSER, str(port(listener))], check=True, capture_output=True, timeout=20
        ).stdout
        found = diag.find(TCP, "127.0.0.1", int(out), "127.0.0.1", port(listener))
        assert found["state"] == FIN_WAIT1 and found["inode"] is None
        assert found["uid"] in (None, ANOTHER_UID) and found["cgroup_id"]


def test_link_local_and_device(diag, namespace):
    ip("link", "add", "nfdiag0", "type", "veth", "peer", "name", "nfdiag1", netns=namespace)
    for name in ("nfdiag0", "nfdiag1"):
        ip("link", "set", name, "up", netns=namespace)
    ip6_address("fe80::77", 64, "nfdiag0", namespace)
    index = socket.if_nametoindex("nfdiag0")
    with opened(V6) as sock:
        sock.bind(("fe80::77", 0, 0, index))
        sock.connect(("fe80::99", 9, 0, index))
        assert diag.find(UDP, "fe80::77", port(sock), "fe80::99", 9) is None
        is_socket(diag.find(UDP, "fe80::77", port(sock), "fe80::99", 9, ifindex=index), sock, "exact")
    with opened(V4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"nfdiag0")
        sock.bind(("", 0))
        assert diag.find(UDP, "10.0.0.1", port(sock), "10.0.0.2", 9) is None
        is_socket(diag.find(UDP, "10.0.0.1", port(sock), "10.0.0.2", 9, ifindex=index), sock, "wildcard")


@pytest.mark.parametrize("proto", [socket.IPPROTO_ICMP, socket.IPPROTO_RAW, socket.IPPROTO_SCTP, 47])
def test_protocols_without_exact_answer(diag, proto):
    with pytest.raises(OSError, match="not supported"):
        diag.find(proto, "127.0.0.1", 0, "127.0.0.1", 0)
    with pytest.raises(OSError, match="not supported"):
        diag.candidates(proto, "127.0.0.1", 0, "127.0.0.1", 0)


def test_stays_in_its_namespace(diag):
    with opened(V4, address=("127.0.0.1", 0)) as sock, inside(), SockDiag() as other:
        is_socket(diag.find(UDP, "127.0.0.1", port(sock), "127.0.0.1", 9), sock, "wildcard")
        assert other.find(UDP, "127.0.0.1", port(sock), "127.0.0.1", 9) is None
        assert netns_cookie(other) != netns_cookie(diag)


def test_closed(diag):
    assert diag.fileno() >= 0
    diag.close()
    diag.close()
    assert diag.fileno() == -1
    with pytest.raises(OSError):
        diag.find(UDP, "127.0.0.1", 1, "127.0.0.1", 2)


def test_many_in_a_row_leave_nothing_behind(diag):
    with opened(V4, address=("127.0.0.1", 0), SO_REUSEPORT=1) as sock:
        for _ in range(2000):
            assert diag.find(UDP, "127.0.0.1", port(sock), "127.0.0.1", 9)["inode"] == truth(sock)["inode"]
            assert diag.find(TCP, "127.0.0.1", 1, "127.0.0.1", 9) is None
