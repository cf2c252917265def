"""A user who makes as many namespaces as they can does not displace those of others."""

import ctypes
import os
import subprocess
import time

import pytest

from nfct_fast.kernel import netns
from nfct_fast.namespaces.namespace_index import NamespaceIndex
from support.containers import container
from support.flows import Worker
from support.hooks import may_come_from, refresh_addresses
from support.netns import inside, ip, made, netns_inode
from support.users import CLONE_NEWNET, own_namespaces, unshare_many, unshared

pytestmark = pytest.mark.root

NESTED = 6


@pytest.fixture
def host():
    with inside() as name:
        yield name


def nest():
    """Namespaces in a container, made and linked by its root."""
    pids = []
    for i in range(NESTED):
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            if ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0:
                os.write(tell, b"x")
            time.sleep(60)
            os._exit(0)
        assert os.read(told, 1) == b"x"
        subprocess.run(
            ["ip", "link", "add", f"n{i}", "type", "veth", "peer", "name", "eth0", "netns", str(pid)], check=True
        )
        pids.append(pid)
    return [os.stat(f"/proc/{pid}/ns/net").st_ino for pid in pids]


def members(directory):
    for _ in range(3):
        directory.discovery.look()
        directory.refresh()
    return set(directory.namespaces())


def test_others_stay_where_one_makes_many(host):
    with container(65533) as honest, made() as ours, container() as hostile:
        honest.wire(host, 3)
        ip("link", "add", "v1", "type", "veth", "peer", "name", "eth0", "netns", ours, netns=host)
        hostile.run("ip", "link", "set", "lo", "up")
        ip("link", "add", "v2", "type", "veth", "peer", "name", "eth0", "netns", str(hostile.pid), netns=host)
        hostile.worker.say(nest)
        nested = set(hostile.worker.hear())
        assert len(nested) == NESTED
        with NamespaceIndex(ttl=0, limit=4) as directory:
            kept = members(directory)
            assert {honest.inode, netns_inode(ours)} <= kept and len(kept) == 5 and directory.skipped >= NESTED - 2
            # The other way round: those that come late.
            with made() as late:
                ip("link", "add", "v7", "type", "veth", "peer", "name", "eth0", "netns", late, netns=host)
                assert {honest.inode, netns_inode(ours), netns_inode(late)} <= members(directory)
        with NamespaceIndex(ttl=0) as directory:
            assert {honest.inode, netns_inode(ours), *nested} <= members(directory)


def test_those_with_traffic_stay(host):
    with made() as first, made() as second, made() as third:
        for i, name in enumerate((first, second, third)):
            ip("link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns", name, netns=host)
        with NamespaceIndex(ttl=0, limit=2) as directory:
            two = members(directory) - {netns_inode(host)}
            assert len(two) == 2
            busy = next(iter(two))
            refresh_addresses(directory)
            assert may_come_from(directory, "10.88.1.2", busy)
            seen = set()
            for _ in range(6):
                directory.discovery.look()
                directory.refresh()
                assert busy in directory.namespaces()
                seen |= set(directory.namespaces())
            assert seen >= {netns_inode(name) for name in (host, first, second, third)}


def test_unshare_in_a_loop_shuts_nobody_out(host):
    """Those that nothing leads to take no place at all."""
    with Worker(unshare_many(150)) as worker:
        inodes = set()
        for _ in range(150):
            inodes.add(worker.hear())
            worker.say("on")
        assert worker.hear() == "made" and len(inodes) == 150
        with made() as later:
            ip("link", "add", "v1", "type", "veth", "peer", "name", "eth0", "netns", later, netns=host)
            with NamespaceIndex(ttl=0) as directory:
                kept = members(directory)
                assert netns_inode(later) in kept and not kept & inodes
        worker.say("end")


def test_whose_a_namespace_is():
    with made() as ours, netns.Netns(f"/run/netns/{ours}") as space:
        assert netns.owner(space.fileno()) == (None, 0)
    for uid in (65534, 65533, 0):
        with container(uid) as user, netns.Netns(f"/proc/{user.pid}/ns/net") as space:
            assert netns.owner(space.fileno()) == (uid, os.stat(f"/proc/{user.pid}/ns/user").st_ino)


def test_what_a_user_makes_inside_is_still_his():
    """Root of his own user namespace makes another, as the user he is there."""

    def work(worker):
        own_namespaces()
        worker.say(os.getpid())
        worker.hear()

    with unshared(work) as (worker, _):
        pid = worker.hear()
        with netns.Netns(f"/proc/{pid}/ns/net") as space:
            uid, userns = netns.owner(space.fileno())
        assert uid == 65534 and userns != os.stat(f"/proc/{pid}/ns/user").st_ino
        worker.say("end")
