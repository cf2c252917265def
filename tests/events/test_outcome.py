"""What became of a flow, of every kind: real ones, whose entries end by themselves or are deleted."""

import contextlib
import socket
import struct

import pytest

from support.flows import INET, INET6, echo, nft
from support.whole_flows import PORT, conntrack_tool, expired, set_sysctl, whole_flows

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family, address", [(INET, "127.0.0.1"), (INET6, "::1")], ids=["ipv4", "ipv6"])
TIMEOUTS = ("tcp_timeout_syn_sent", "tcp_timeout_established", "tcp_timeout_time_wait", "tcp_timeout_close",
            "tcp_timeout_fin_wait", "udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout")  # fmt: skip


@pytest.fixture
def conntrack():
    with whole_flows() as conntrack:
        for name in TIMEOUTS:
            set_sysctl(f"nf_conntrack_{name}", 1)
        yield conntrack


@contextlib.contextmanager
def connection(family, address):
    with socket.create_server((address, PORT), family=family) as server:
        with socket.create_connection((address, PORT)) as client, server.accept()[0] as accepted:
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer" * 100)
            assert client.recv(1000)
            yield client, accepted


def is_of_test(flow):
    return flow.dport == PORT or "icmp" in flow.proto


@FAMILIES
def test_answered_and_closed(conntrack, family, address):
    with connection(family, address) as (client, accepted):
        client.close()
        assert accepted.recv(1) == b""
    [flow] = expired(conntrack, is_of_test, 1)
    assert (flow.type, flow.outcome, flow.forgotten) == ("FLOW", "answered", False)
    assert flow.counters.original_bytes > 8 and flow.counters.reply_bytes > 600
    assert flow.duration_ns == flow.stop_ns - flow.start_ns > 9 * 10**8


@FAMILIES
def test_refused(conntrack, family, address):
    with socket.socket(family, socket.SOCK_STREAM) as client, pytest.raises(ConnectionRefusedError):
        client.connect((address, PORT))
    [flow] = expired(conntrack, is_of_test, 1)
    assert flow.outcome == "refused" and flow.counters[::2] == (1, 1) and flow.duration_ns < 10**9


@FAMILIES
def test_reset(conntrack, family, address):
    with connection(family, address) as (client, accepted):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    [flow] = expired(conntrack, is_of_test, 1)
    assert flow.outcome == "reset"


@FAMILIES
def test_timed_out(conntrack, family, address):
    with connection(family, address):
        [flow] = expired(conntrack, is_of_test, 1)
    assert flow.outcome == "timed_out"


@FAMILIES
def test_unanswered(conntrack, family, address):
    nft(f"table inet deaf {{ chain c {{ type filter hook input priority 0; tcp dport {PORT} drop; }}; }}")
    with socket.socket(family, socket.SOCK_STREAM) as client, pytest.raises((TimeoutError, BlockingIOError)):
        client.settimeout(0.1)
        client.connect((address, PORT))
    [flow] = expired(conntrack, is_of_test, 1)
    assert flow.outcome == "unanswered" and flow.counters.reply_packets == 0


@FAMILIES
def test_deleted_while_it_was_used(conntrack, family, address):
    with connection(family, address):
        set_sysctl("nf_conntrack_tcp_timeout_established", 600)
        conntrack_tool("-F", "-f", "ipv6" if family == INET6 else "ipv4")
        [flow] = expired(conntrack, is_of_test, 1)
    assert flow.outcome in ("answered", "timed_out")


@FAMILIES
@pytest.mark.parametrize("answers", [True, False, None], ids=["answered", "unanswered", "closed"])
def test_udp(conntrack, family, address, answers):
    with contextlib.ExitStack() as stack:
        server, client = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        if answers is not None:
            server.bind((address, PORT))
        client.connect((address, PORT))
        client.send(b"x" * 100)
        if answers:
            server.sendto(b"y" * 200, server.recvfrom(200)[1])
            assert len(client.recv(300)) == 200
    [flow] = expired(conntrack, is_of_test, 1)
    # An ICMP error, too, leaves no trace.
    assert flow.outcome == ("answered" if answers else "unanswered")
    header = 48 if family == INET6 else 28
    assert flow.counters == (1, header + 100, int(bool(answers)), (header + 200) * bool(answers))


@FAMILIES
def test_ping(conntrack, family, address):
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if family == INET else 58) as sock:
        sock.sendto(echo(family, 7), (address, 0))
    [flow] = expired(conntrack, is_of_test, 1)
    assert flow.outcome == "answered" and flow.counters[::2] == (1, 1)
