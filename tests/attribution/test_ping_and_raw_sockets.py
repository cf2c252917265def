"""Ping sockets, raw ICMP and raw sockets of other protocols, which only the tables in /proc/net list."""

import socket
import struct

import pytest

from support.flows import (
    BOTH,
    COUNT,
    DGRAM,
    INET,
    INET6,
    Worker,
    close_after,
    collect_count,
    collect_in_turn,
    echo,
    inode,
    listening,
)
from support.netns import inside

pytestmark = pytest.mark.root
RAW = socket.SOCK_RAW


@pytest.fixture
def netns():
    with inside() as name:
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as group_range:
            group_range.write("0 0")
        yield name


def pinger(family, kind, address, connect=False):
    proto = socket.IPPROTO_ICMP if family == INET else socket.IPPROTO_ICMPV6

    def work(worker):
        told = {}
        for number in range(COUNT):
            sock = socket.socket(family, kind, proto)
            if kind == DGRAM:
                sock.bind(("::1" if family == INET6 else "0.0.0.0", 20000 + number))
            if connect:
                sock.connect((address, 0))
                sock.send(echo(family, 20000 + number))
            else:
                sock.sendto(echo(family, 20000 + number), (address, 0))
            told[20000 + number] = inode(sock)
            close_after(worker, sock)
        return told

    return work


def is_echo(flow):
    return flow.protonum in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)


@BOTH
@pytest.mark.parametrize("connect", [False, True])
@pytest.mark.parametrize("kind, match", [(DGRAM, ("socket", "wildcard")), (RAW, ("protocol",))])
@pytest.mark.parametrize("family, address", [(INET, "127.0.0.1"), (INET6, "::1")])
def test_echo(netns, mode, family, address, kind, match, connect):
    with listening(mode) as conntrack, Worker(pinger(family, kind, address, connect)) as asking:
        flows = collect_in_turn(conntrack, is_echo, COUNT, asking)
        truth = asking.result()
    assert len(flows) == COUNT
    for flow in flows:
        assert (flow.owner.pid, flow.owner.reason) == (asking.pid, None), (flow, flow.original)
        assert flow.owner.inode == truth[flow.original.icmp_id]
        assert flow.owner.match in match
        # The sender's own raw socket hears the request too, but it is the kernel that answers.
        assert (flow.peer.pid, flow.peer.reason) == (None, "kernel")


@BOTH
# 255 writes the header itself, which no IPv6 socket does.
@pytest.mark.parametrize(
    "family, addresses, proto",
    [
        (INET, "127.0.1.{}", 253),
        (INET, "127.0.1.{}", 47),
        (INET, "127.0.1.{}", 255),
        (INET6, "::1", 253),
        (INET6, "::1", 47),
    ],
)
def test_raw(netns, mode, family, addresses, proto):
    count = COUNT if family == INET else 1

    def work(worker):
        told = []
        for number in range(count):
            sock = socket.socket(family, RAW, proto)
            address = addresses.format(number + 1)
            packet = b"12345678"
            if proto == 255:
                header = struct.pack(
                    "!BBHHHBBH4s4s",
                    0x45,
                    0,
                    28,
                    1,
                    0,
                    64,
                    253,
                    0,
                    socket.inet_aton("127.0.0.1"),
                    socket.inet_aton(address),
                )
                packet = header + packet
            sock.sendto(packet, (address, 0))
            told.append(inode(sock))
            close_after(worker, sock)
        return told

    with listening(mode) as conntrack, Worker(work) as asking:
        wanted = 253 if proto == 255 else proto
        flows = collect_in_turn(
            conntrack, lambda flow: flow.protonum == wanted and flow.src in ("127.0.0.1", "::1"), count, asking
        )
        truth = asking.result()
    assert len(flows) == count
    for flow, number in zip(flows, truth):
        if proto == 255:
            # Which of the header-writing sockets sent a protocol that is not its own is not for the table to say.
            assert flow.owner.pid in (asking.pid, None)
        else:
            assert (flow.owner.pid, flow.owner.inode, flow.owner.match) == (asking.pid, number, "protocol")


@BOTH
def test_two_raw_sockets_of_one_protocol_are_ambiguous(netns, mode):
    with listening(mode) as conntrack, socket.socket(INET, RAW, 253) as rival:

        def work(worker):
            rival.close()
            sock = socket.socket(INET, RAW, 253)
            sock.sendto(b"x" * 8, ("127.0.0.9", 0))
            worker.hear()

        with Worker(work):
            [flow] = collect_count(conntrack, lambda flow: flow.protonum == 253 and flow.dst == "127.0.0.9", 1)
            assert (flow.owner.pid, flow.owner.reason) == (None, "ambiguous")


@BOTH
def test_rival_that_writes_the_header_itself(netns, mode):
    with listening(mode) as conntrack, socket.socket(INET, RAW, 255) as rival:

        def work(worker):
            rival.close()
            sock = socket.socket(INET, RAW, 253)
            sock.sendto(b"x" * 8, ("127.0.0.9", 0))
            worker.hear()

        with Worker(work):
            [flow] = collect_count(conntrack, lambda flow: flow.protonum == 253, 1)
            assert (flow.owner.pid, flow.owner.reason) == (None, "ambiguous")
