"""NAT, and processes in other namespaces, wired as docker and podman do: veth pairs, masquerade, published ports.

Conntrack hears one namespace, the host's; the containers and the world outside are others.
"""

import socket
import time
from contextlib import contextmanager

import pytest

from support.containers import OUTSIDE, clients, hosts, mac, serving, wire, within
from support.flows import (
    ALL,
    BOTH,
    COUNT,
    DGRAM,
    INET,
    INET6,
    KINDS,
    STREAM,
    Worker,
    assert_all_named,
    close_after,
    collect,
    collect_in_turn,
    echo,
    inode,
    listening,
    nft,
)
from support.netns import ip
from support.netns import made as made_netns

pytestmark = pytest.mark.root


@contextmanager
def served(mode, netns, family, kind, address, port):
    """A server in that namespace (None: the host), monitored: (Worker, inode of its socket, Conntrack)."""
    with serving(netns, family, kind, address, port) as answering:
        _, there = answering.hear()
        with listening(mode) as conntrack:
            yield answering, there, conntrack


def both_named(conntrack, answering, work, port, direction):
    """The flows to that port which the work made: each has its client as owner, the server as peer."""
    with Worker(work) as asking:
        flows = collect(conntrack, lambda flow: flow.dport == port)
        assert_all_named(flows, asking.result())
    for flow in flows:
        assert flow.direction == direction
        assert (flow.peer.pid, flow.peer.reason) == (answering.pid, None)
    return flows


MASQUERADE = """
table ip nat {
    chain out {
        type nat hook postrouting priority srcnat
        ip saddr 10.88.1.0/24 masquerade
    }
}
"""


@ALL
@KINDS
@pytest.mark.parametrize("family, src, dst", [(INET, "10.88.1.2", "10.88.2.2"), (INET6, "fd88:1::2", "fd88:2::2")])
def test_container_to_the_world(mode, kind, family, src, dst):
    with hosts(2) as (host, container, world):
        nft(MASQUERADE)
        with served(mode, world, family, kind, dst, 5100) as (answering, _, conntrack):
            # Both ends are on this host: the world is a namespace too.
            both_named(conntrack, answering, within(container, clients(family, kind, dst, 5100, src)), 5100, "forward")


@ALL
@KINDS
def test_container_made_after_the_start(mode, kind):
    with hosts(1) as (host, world), serving(world, INET, kind, "10.88.1.2", 5100) as answering:
        answering.hear()
        with listening(mode) as conntrack, made_netns() as container:
            time.sleep(1.2)  # the last search for namespaces is as old as most often
            wire(host, container, 7)
            work = within(container, clients(INET, kind, "10.88.1.2", 5100, "10.88.7.2"))
            with Worker(work) as asking:
                flows = collect(conntrack, lambda flow: flow.dport == 5100)
                assert_all_named(flows, asking.result())


PUBLISH = """
table ip nat {
    chain in {
        type nat hook prerouting priority dstnat
        fib daddr type local tcp dport 8080 dnat to 10.88.1.2:5200
        fib daddr type local udp dport 8080 dnat to 10.88.1.2:5200
    }
    chain out {
        type nat hook output priority -100
        fib daddr type local tcp dport 8080 dnat to 10.88.1.2:5200
        fib daddr type local udp dport 8080 dnat to 10.88.1.2:5200
    }
    chain post {
        type nat hook postrouting priority srcnat
        ip saddr 10.88.1.0/24 ip daddr 10.88.1.0/24 masquerade
    }
}
"""


@ALL
@KINDS
def test_published_port(mode, kind):
    with hosts(2) as (host, container, world):
        nft(PUBLISH)
        with served(mode, container, INET, kind, "0.0.0.0", 5200) as (answering, there, conntrack):
            work = within(world, clients(INET, kind, "10.88.2.1", 8080, "10.88.2.2"))
            for flow in both_named(conntrack, answering, work, 8080, "forward"):
                assert kind == STREAM or flow.peer.inode == there or flow.peer.match == "bpf"


@ALL
@KINDS
def test_published_port_from_the_host_itself(mode, kind):
    with hosts(1) as (host, container):
        nft(PUBLISH)
        with served(mode, container, INET, kind, "0.0.0.0", 5200) as (answering, _, conntrack):
            both_named(conntrack, answering, clients(INET, kind, "10.88.1.1", 8080, "10.88.1.1"), 8080, "out")


@ALL
@KINDS
def test_hairpin(mode, kind):
    # A container that speaks to the published port of itself, or of another one on the same bridge.
    with hosts(1) as (host, container):
        nft(PUBLISH)
        with served(mode, container, INET, kind, "0.0.0.0", 5200) as (answering, _, conntrack):
            work = within(container, clients(INET, kind, "10.88.1.1", 8080, "10.88.1.2"))
            both_named(conntrack, answering, work, 8080, "forward")


REDIRECT = """
table ip nat {
    chain in {
        type nat hook prerouting priority dstnat
        tcp dport 8080 redirect to :5300
        udp dport 8080 redirect to :5300
    }
    chain out {
        type nat hook output priority -100
        tcp dport 8080 redirect to :5300
        udp dport 8080 redirect to :5300
    }
}
"""


@ALL
@KINDS
def test_redirect_to_a_local_socket(mode, kind):
    with hosts(1) as (host, container):
        nft(REDIRECT)
        with served(mode, None, INET, kind, "0.0.0.0", 5300) as (answering, _, conntrack):
            work = within(container, clients(INET, kind, "10.88.99.9", 8080, "10.88.1.2"))
            both_named(conntrack, answering, work, 8080, "in")
            both_named(conntrack, answering, clients(INET, kind, "10.88.1.1", 8080, "10.88.1.1"), 8080, "local")


@ALL
@KINDS
def test_container_to_the_host(mode, kind):
    with hosts(1) as (host, container), served(mode, None, INET, kind, "0.0.0.0", 5200) as (answering, _, conntrack):
        work = within(container, clients(INET, kind, "10.88.1.1", 5200, "10.88.1.2"))
        both_named(conntrack, answering, work, 5200, "in")


@ALL
@KINDS
def test_from_outside(mode, kind):
    # Where the client's namespace cannot be looked into it is another host: only the responder is named.
    with hosts(1) as (host, world), serving(None, INET, kind, "0.0.0.0", 5200) as answering:
        answering.hear()
        nft(OUTSIDE, world)
        ip("addr", "add", "10.88.1.78/24", "dev", "eth0", netns=world)
        ip("neigh", "add", "10.88.1.77", "dev", "v1", "lladdr", mac(world), netns=host)
        with listening(mode) as conntrack:
            with Worker(within(world, clients(INET, kind, "10.88.1.1", 5200, "10.88.1.77"))) as asking:
                flows = collect(conntrack, lambda flow: flow.dport == 5200)
                ports = {one.sport for one in asking.result()}
            assert {flow.sport for flow in flows} == ports
            for flow in flows:
                assert (flow.direction, flow.src, flow.peer) == ("in", "10.88.1.77", None)
                assert (flow.owner.pid, flow.owner.reason) == (answering.pid, None)


@BOTH
@pytest.mark.parametrize("kind, proto", [(DGRAM, 1), (socket.SOCK_RAW, 1), (socket.SOCK_RAW, 253)])
def test_container_without_ports(mode, kind, proto):
    def work(worker):
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as group_range:
            group_range.write("0 0")
        told = []
        for number in range(COUNT):
            sock = socket.socket(INET, kind, proto)
            if kind == DGRAM:
                sock.bind(("0.0.0.0", 20000 + number))
            sock.sendto(echo(INET, 20000 + number), (f"10.88.2.{number + 2}", 0))
            told.append(inode(sock))
            close_after(worker, sock)
        return told

    with hosts(2) as (host, container, world), listening(mode) as conntrack:
        for number in range(3, COUNT + 2):
            ip("addr", "add", f"10.88.2.{number}/24", "dev", "eth0", netns=world)
        with Worker(within(container, work)) as asking:
            flows = collect_in_turn(
                conntrack, lambda flow: flow.src == "10.88.1.2" and flow.protonum == proto, COUNT, asking
            )
            truth = asking.result()
    assert len(flows) == COUNT
    for flow, number in zip(flows, truth):
        assert (flow.direction, flow.owner.pid, flow.owner.inode) == ("forward", asking.pid, number)
        if proto == 1:
            assert flow.peer.reason == "kernel"
