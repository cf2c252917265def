"""From which namespaces a packet can have come: links between namespaces, and those that unprivileged users made."""

import contextlib
import os
import socket
import subprocess
import threading
import time

import pytest

from nfct_fast.attribution.resolver import Resolver
from nfct_fast.kernel import netns
from nfct_fast.namespaces.namespace_index import NamespaceIndex
from support.cli import until
from support.containers import OUTSIDE, bridge, clients, container, hosts, in_user_namespace, mac, serving, within
from support.flows import (
    ALL,
    COUNT,
    DGRAM,
    INET,
    INET6,
    KINDS,
    STREAM,
    Worker,
    assert_all_named,
    collect,
    listening,
    nft,
)
from support.hooks import find_flow, find_socket, may_come_from
from support.netns import inside, ip, made, netns_inode
from support.stopwatch import Stopwatch
from support.users import unshared

pytestmark = pytest.mark.root

PORTS = range(41000, 41000 + COUNT)


@contextlib.contextmanager
def known(*inodes):
    """A NamespaceIndex that has these."""
    with NamespaceIndex(ttl=0) as directory:
        directory.discovery.look()
        assert directory.refresh() and set(inodes) <= set(directory.namespaces())
        yield directory


def entered(inode, work):
    path = netns.paths()[inode][1]
    with netns.Netns(path) as space, space.entered():
        return work()


@pytest.fixture
def host():
    with inside() as name:
        yield name


def test_a_namespace_of_a_user_without_a_link_is_not_even_known(host):
    with container() as squatter:
        squatter.run("ip", "link", "set", "lo", "up")
        squatter.run("ip", "route", "add", "local", "default", "dev", "lo")
        with NamespaceIndex(ttl=0) as directory:
            directory.discovery.look()
            directory.refresh()
            assert squatter.inode not in directory.namespaces() and directory.skipped == 0


def test_one_of_ours_without_a_link_is_never_it(host):
    with made() as name:
        ip("addr", "add", "10.88.9.2/24", "dev", "lo", netns=name)
        with known(netns_inode(name)) as directory:
            assert not may_come_from(directory, "10.88.9.2", netns_inode(name))


LINKS = {
    "veth": lambda host, name: ip(
        "link", "add", "v1", "type", "veth", "peer", "name", "eth0", "netns", name, netns=host
    ),
    "macvlan": lambda host, name: ip(
        "link", "add", "link", "p0", "name", "eth0", "netns", name, "type", "macvlan", netns=host
    ),
    "ipvlan": lambda host, name: ip(
        "link", "add", "link", "p0", "name", "eth0", "netns", name, "type", "ipvlan", netns=host
    ),
}


@pytest.mark.parametrize("kind", LINKS)
def test_ours_with_a_link(host, kind):
    with made() as name:
        ip("link", "add", "p0", "type", "veth", "peer", "name", "p1", netns=host)
        try:
            LINKS[kind](host, name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel has no {kind}: {error.stderr}")
        with known(netns_inode(name)) as directory:
            assert may_come_from(directory, "10.88.9.2", netns_inode(name))


def test_ours_behind_another(host):
    with made() as router, made() as inner:
        ip("link", "add", "v1", "type", "veth", "peer", "name", "eth0", "netns", router, netns=host)
        ip("link", "add", "v2", "type", "veth", "peer", "name", "eth0", "netns", inner, netns=router)
        with known(netns_inode(router), netns_inode(inner)) as directory:
            assert may_come_from(directory, "10.88.9.2", netns_inode(inner))
            ip("link", "del", "v1", netns=host)
            directory.refresh()
            directory.refresh()
            assert not may_come_from(directory, "10.88.9.2", netns_inode(inner))


@pytest.mark.parametrize("with_bridge", [False, True])
def test_a_users_container_is_believed_for_what_home_routes_there(host, with_bridge):
    with container() as user, made() as world:
        ip("link", "add", "w0", "type", "veth", "peer", "name", "eth0", "netns", world, netns=host)
        ip("addr", "add", "10.88.8.1/24", "dev", "w0", netns=host)
        ip("link", "set", "w0", "up", netns=host)
        ip("route", "add", "default", "via", "10.88.8.9", netns=host)
        user.wire(host, 2, bridge(host) if with_bridge else None)
        user.run("ip", "route", "add", "local", "default", "dev", "lo")
        user.run("ip", "-6", "route", "add", "local", "default", "dev", "lo")
        with known(user.inode, netns_inode(world)) as directory:
            for address in ("10.88.9.2", "fd88:9::2", "10.88.9.77"):
                assert may_come_from(directory, address, user.inode), address
            for address in ("10.88.8.9", "8.8.8.8", "2001:db8::1", "10.88.8.2"):
                assert not may_come_from(directory, address, user.inode), address


def test_two_on_one_bridge_are_believed_for_their_own(host):
    with container() as user, container(65533) as other:
        name = bridge(host)
        user.wire(host, 2, name)
        other.wire(host, 3, name)
        with known(user.inode, other.inode) as directory:
            assert may_come_from(directory, "10.88.9.2", user.inode) and may_come_from(
                directory, "10.88.9.3", other.inode
            )
            assert not may_come_from(directory, "10.88.9.3", user.inode)
            # An address that both claim is attributed to neither.
            other.run("ip", "addr", "add", "10.88.9.2/32", "dev", "lo")
            time.sleep(0.05)
            directory.refresh()
            assert not may_come_from(directory, "10.88.9.2", other.inode)
            assert not may_come_from(directory, "10.88.9.2", user.inode)


def test_a_bridge_with_a_wire_to_the_world(host):
    """Other hosts behind it may have its addresses."""
    with container() as user:
        name = bridge(host)
        user.wire(host, 2, name)
        ip("tuntap", "add", "wire", "mode", "tap", netns=host)
        with known(user.inode) as directory:
            assert may_come_from(directory, "10.88.9.2", user.inode)
            ip("link", "set", "wire", "master", name, netns=host)
            directory.refresh()
            assert not may_come_from(directory, "10.88.9.2", user.inode)


def test_routes_of_home_that_change(host):
    with container() as user:
        user.wire(host, 2)
        user.run("ip", "addr", "add", "192.0.2.5/32", "dev", "lo")
        with known(user.inode) as directory:
            assert not may_come_from(directory, "192.0.2.5", user.inode)
            ip("route", "add", "192.0.2.5/32", "via", "10.88.9.2", netns=host)
            time.sleep(0.11)
            assert may_come_from(directory, "192.0.2.5", user.inode)
            ip("route", "del", "192.0.2.5/32", netns=host)
            time.sleep(0.11)
            assert not may_come_from(directory, "192.0.2.5", user.inode)


def test_a_container_in_a_users_container(host):
    with container() as outer, made() as inner_name:
        # As root of the outer one would make it: behind its own link, with a route of home's to it.
        outer.wire(host, 2)
        ip("link", "add", "v9", "type", "veth", "peer", "name", "eth0", "netns", inner_name, netns=host)
        ip("link", "set", "v9", "netns", str(outer.pid), netns=host)
        outer.run("ip", "link", "set", "v9", "up")
        outer.run("ip", "addr", "add", "10.99.0.1/24", "dev", "v9")
        ip("link", "set", "eth0", "up", netns=inner_name)
        ip("addr", "add", "10.99.0.2/24", "dev", "eth0", netns=inner_name)
        ip("route", "add", "10.99.0.0/24", "via", "10.88.9.2", netns=host)
        with known(outer.inode, netns_inode(inner_name)) as directory:
            assert may_come_from(directory, "10.99.0.2", netns_inode(inner_name))
            assert may_come_from(directory, "10.99.0.1", outer.inode)
            assert not may_come_from(directory, "10.99.0.2", outer.inode)


def test_listened_in_itself_it_says_nothing_of_others(host):
    """What is seen in a user's namespace may be forged by him."""
    with container() as user, made() as ours:
        user.wire(host, 2)
        ip("link", "add", "v1", "type", "veth", "peer", "name", "eth0", "netns", ours, netns=host)
        with known(user.inode, netns_inode(ours)) as directory:
            with netns.Netns(netns.paths()[user.inode][1]) as space:
                home = directory.monitor(space)
            directory.refresh()
            assert may_come_from(directory, "10.88.9.2", user.inode, monitored=home)
            assert not may_come_from(directory, "10.88.1.2", netns_inode(ours), monitored=home)
            assert not may_come_from(directory, "10.88.9.1", netns_inode(host), monitored=home)


def bind_ports():
    socks = []
    for port in PORTS:
        for kind in (STREAM, DGRAM):
            for family, address in ((INET, "0.0.0.0"), (INET6, "::")):
                sock = socket.socket(family, kind)
                if family == INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address, port))
                if kind == STREAM:
                    sock.listen()
                socks.append(sock)
    return socks


def squat(worker):
    """Everything is local, and the ports are bound."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for family in ("-4", "-6"):
        subprocess.run(["ip", family, "route", "add", "local", "default", "dev", "lo"], check=True)
    kept = bind_ports()
    worker.say("bound")
    worker.hear()
    return len(kept)


kept = []


def claim_the_world():
    subprocess.run(["ip", "route", "add", "local", "10.88.1.0/24", "dev", "lo"], check=True)
    kept.append(bind_ports())
    return "bound"


def from_ports(kind, ports, address, port, family=INET):
    """Clients with these source ports."""

    def work(worker):
        kept = []
        for number in ports:
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("::" if family == INET6 else "0.0.0.0", number))
            sock.connect((address, port))
            sock.send(b"x")
            kept.append(sock)
        worker.say("sent")
        worker.hear()

    return work


def masquerade_as_outside(host, world):
    """What the world sends has an address that the host knows of nobody."""
    nft(OUTSIDE, world)
    ip("addr", "add", "10.88.1.78/24", "dev", "eth0", netns=world)
    ip("neigh", "add", "10.88.1.77", "dev", "v1", "lladdr", mac(world), netns=host)


def assert_the_server_is_named(mode, kind, world, answering):
    """Of flows from the world's ports, and nobody else."""
    with listening(mode) as conntrack:
        with Worker(within(world, from_ports(kind, PORTS, "10.88.1.1", 5200))) as asking:
            flows = collect(conntrack, lambda flow: flow.dport == 5200)
            assert asking.hear() == "sent"
    assert len(flows) == COUNT
    for flow in flows:
        assert flow.src == "10.88.1.77" and flow.peer is None
        assert (flow.owner.pid, flow.owner.reason) == (answering.pid, None)


@ALL
@KINDS
def test_squatter_with_everything_local(mode, kind):
    """unshare -Urn, a local route for everything and the source ports of what comes from outside."""
    with (
        hosts(1) as (host, world),
        serving(None, INET, kind, "0.0.0.0", 5200) as answering,
        unshared(squat) as (squatter, _),
    ):
        answering.hear()
        assert squatter.hear() == "bound"
        masquerade_as_outside(host, world)
        assert_the_server_is_named(mode, kind, world, answering)


@ALL
@KINDS
def test_squatter_that_is_a_container(mode, kind):
    """The same by root of a user's container, which is linked: what comes from the world is not its."""
    with hosts(1) as (host, world), serving(None, INET, kind, "0.0.0.0", 5200) as answering, container() as user:
        answering.hear()
        user.wire(host, 2)
        masquerade_as_outside(host, world)
        user.worker.say(claim_the_world)
        assert user.worker.hear() == "bound"
        assert_the_server_is_named(mode, kind, world, answering)


@ALL
@KINDS
@pytest.mark.parametrize("with_bridge", [False, True])
@pytest.mark.parametrize("family, src, dst", [(INET, "10.88.9.2", "10.88.1.2"), (INET6, "fd88:9::2", "fd88:1::2")])
def test_honest_container_of_a_user(mode, kind, with_bridge, family, src, dst):
    """As LXC's without privileges: named, as client and as server."""
    with hosts(1) as (host, world), container() as user:
        user.wire(host, 2, bridge(host) if with_bridge else None)
        with serving(world, family, kind, dst, 5100) as answering:
            answering.hear()
            with listening(mode) as conntrack:
                with Worker(in_user_namespace(user.pid, clients(family, kind, dst, 5100, src))) as asking:
                    flows = collect(conntrack, lambda flow: flow.dport == 5100)
                    assert_all_named(flows, asking.result())
                assert {(flow.peer.pid, flow.peer.reason) for flow in flows} == {(answering.pid, None)}
        serve = Worker(in_user_namespace(user.pid, serving_work(family, kind, 5300)))
        with serve as answering:
            assert answering.hear() == "serving"
            with listening(mode) as conntrack:
                with Worker(within(world, clients(family, kind, src, 5300, dst))) as asking:
                    flows = collect(conntrack, lambda flow: flow.dport == 5300)
                    assert_all_named(flows, asking.result())
                for flow in flows:
                    assert (flow.direction, flow.peer.pid, flow.peer.reason) == ("forward", answering.pid, None)


def serving_work(family, kind, port):
    def work(worker):
        sock = socket.socket(family, kind)
        sock.bind(("::" if family == INET6 else "0.0.0.0", port))
        if kind == STREAM:
            sock.listen(64)
        worker.say("serving")
        kept = []
        while True:
            if kind == STREAM:
                kept.append(sock.accept()[0])
            else:
                sock.recv(100)

    return work


def test_tap_of_a_process_here(host):
    """As slirp's: what its namespace sends comes out of sockets of a process on the host."""
    with container(uid=0) as user:
        user.run("ip", "tuntap", "add", "tap0", "mode", "tap")
        user.run("ip", "addr", "add", "10.0.2.100/24", "dev", "tap0")
        with NamespaceIndex(ttl=0) as directory:
            directory.discovery.look()
            directory.refresh()
            assert user.inode not in directory.namespaces()


def many_prefixes(count):
    def lines():
        return [f"route add local 10.{i >> 14}.{i >> 6 & 255}.{(i & 63) * 4}/30 dev lo" for i in range(count)]

    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines()), text=True, check=True)
    return "added"


def few_too_many():
    return many_prefixes(1100)


def flush():
    subprocess.run(["ip", "route", "flush", "table", "local", "proto", "boot"], check=True)
    return "flushed"


def test_more_routes_than_are_taken_in(host):
    """Then the namespace is not asked, and counted, until it has fewer."""
    with container() as user:
        user.wire(host, 2)
        with known(user.inode) as directory:
            assert may_come_from(directory, "10.88.9.2", user.inode) and directory.skipped == 0
            user.worker.say(few_too_many)
            assert user.worker.hear() == "added"
            until(lambda: [directory.refresh(), directory.skipped == 1][1])
            assert not may_come_from(directory, "10.88.9.2", user.inode)
            with pytest.raises(LookupError):
                find_socket(directory, 17, "10.88.9.2", 1, "8.8.8.8", 53)
            user.worker.say(flush)
            assert user.worker.hear() == "flushed"
            until(lambda: [directory.refresh(), directory.skipped == 0][1])
            assert may_come_from(directory, "10.88.9.2", user.inode)


def flap():
    """Addresses that come and go as fast as they may, beside a thousand that stay."""
    many_prefixes(900)
    if os.fork() == 0:
        words = "addr add 192.0.2.1/32 dev lo\naddr del 192.0.2.1/32 dev lo\n" * 200
        end = time.monotonic() + 6
        while time.monotonic() < end:
            subprocess.run(["ip", "-batch", "-"], input=words, text=True, check=True)
        os._exit(0)
    return "flapping"


def test_addresses_that_come_and_go_without_end(host):
    """They cost the discovery thread some percent of a processor, and no flow waits for it."""
    with container() as user:
        user.wire(host, 2)
        with contextlib.closing(Resolver("diag")) as attribution, Stopwatch() as watch:
            user.worker.say(flap)
            assert user.worker.hear() == "flapping"
            time.sleep(0.5)
            before, began = discovery_seconds(), time.monotonic()
            longest, count = 0, 0
            while time.monotonic() < began + 3:
                one = watch.clock()
                find_flow(attribution, 17, f"203.0.113.{count % 250}", 1, "198.51.100.1", 53)
                longest = max(longest, watch.clock() - one)
                count += 1
            assert discovery_seconds() - before < 0.15 * 3
            assert longest < 0.05, f"{longest} s, of {count}"


def discovery_seconds():
    """Processor time of the discovery thread."""
    [discovery] = [thread.native_id for thread in threading.enumerate() if thread.name == "nfct-discovery"]
    with open(f"/proc/self/task/{discovery}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
