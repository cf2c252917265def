"""NAT, and processes in other network namespaces, wired as docker and podman do: veth pairs, masquerade, published ports.

Conntrack hears one namespace, the host's; the containers and the world outside are others.
"""
import os
import socket
import time
from contextlib import contextmanager

import pytest

from nfct_fast.netns import resolve
from support_netns import inside, ip, made as made_netns
from support_shapes import COUNT, HELD, Worker, assert_all_named, collect, collect_count, inode, listening, made, nft, server
from test_shapes_ping import echo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
BOTH = pytest.mark.parametrize("mode", ["diag", "proc"])
INET, INET6, STREAM, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = pytest.mark.parametrize("kind", [STREAM, DGRAM])


def wire(host, other, number):
    """A veth pair: 10.88.N.1 and fd88:N::1 on the host, .2 and ::2 in the other namespace, with a default route."""
    ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", other, netns=host)
    for name, netns, end in ((f"v{number}", host, 1), ("eth0", other, 2)):
        ip("addr", "add", f"10.88.{number}.{end}/24", "dev", name, netns=netns)
        ip("addr", "add", f"fd88:{number}::{end}/64", "dev", name, "nodad", netns=netns)
        ip("link", "set", name, "up", netns=netns)
    ip("route", "add", "default", "via", f"10.88.{number}.1", netns=other)
    ip("route", "add", "default", "via", f"fd88:{number}::1", netns=other)


@contextmanager
def hosts(count):
    """The thread in a host that forwards between `count` namespaces, whose names are given."""
    with inside() as host:
        others = []
        managers = [made_netns() for _ in range(count)]
        try:
            for number, manager in enumerate(managers):
                others.append(manager.__enter__())
                wire(host, others[-1], number + 1)
            for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                with open(f"/proc/sys/net/{path}", "w") as forward:
                    forward.write("1")
            yield others
        finally:
            for manager in managers[:len(others)]:
                manager.__exit__(None, None, None)


def within(netns, work):
    """The work, done in that namespace."""
    def moved(worker):
        [space] = resolve(netns)
        with space, space.entered():
            return work(worker)
    return moved


def serving(netns, family, kind, address, port):
    def work(worker):
        sock = socket.socket(family, kind)
        sock.bind((address, port))
        if kind == STREAM:
            sock.listen(64)
        worker.say((port, inode(sock)))
        kept = []
        while True:
            kept.append(sock.accept() if kind == STREAM else sock.recv(100))
    return Worker(within(netns, work) if netns else work)


def clients(family, kind, address, port, src):
    def work(worker):
        socks = [socket.socket(family, kind) for _ in range(COUNT)]
        for sock in socks:
            if kind == STREAM:
                sock.connect((address, port))
            else:
                sock.sendto(b"x", (address, port))
        time.sleep(HELD)
        return [made(sock)._replace(src=src) for sock in socks]
    return work


MASQUERADE = """
table ip nat {
    chain out { type nat hook postrouting priority srcnat; ip saddr 10.88.1.0/24 masquerade }
}
"""


@BOTH
@KINDS
@pytest.mark.parametrize("family, src, dst", [(INET, "10.88.1.2", "10.88.2.2"), (INET6, "fd88:1::2", "fd88:2::2")])
def test_container_to_the_world(mode, kind, family, src, dst):
    with hosts(2) as (container, world):
        nft(MASQUERADE)
        with (serving(world, family, kind, dst, 5100) as answering, listening(mode) as conntrack):
            answering.hear()
            with Worker(within(container, clients(family, kind, dst, 5100, src))) as asking:
                flows = collect(conntrack, lambda flow: flow.dport == 5100)
                assert_named_at_last(conntrack, flows, asking, container, lambda: clients(family, kind, dst, 5100, src))


def assert_named_at_last(conntrack, flows, asking, container, again):
    """New namespaces are found within a second or so of the first flow from them; from then on all are named."""
    truth = asking.result()
    if all(flow.owner.pid is None for flow in flows):
        assert {flow.owner.reason for flow in flows} <= {"forwarded", "netns"}
        time.sleep(1.5)
        with Worker(within(container, again())) as second:
            flows = collect(conntrack, lambda flow: flow.sport in (5100, 5200) or flow.dport in (5100, 5200, 8080))
            truth = second.result()
    assert_all_named(flows, truth)
    for flow in flows:
        assert flow.direction in ("forward", "in")
    return flows
