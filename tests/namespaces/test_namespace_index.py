"""A socket is found in whichever namespace has its address; the truth is the socket itself."""

import os
import socket
import subprocess
import sys

import pytest

from nfct_fast.kernel import netns
from nfct_fast.namespaces.namespace_index import NamespaceIndex
from support.child import Child
from support.cli import until
from support.hooks import find_socket, find_sockets, refresh_addresses
from support.netns import inside, ip, ip6_address, made

pytestmark = pytest.mark.root

UDP, TCP = socket.IPPROTO_UDP, socket.IPPROTO_TCP


def in_namespace(name, work):
    [space] = netns.resolve(name)
    with space, space.entered():
        return work()


def udp(name, address, port=0, remote=None):
    def work():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, port))
        if remote:
            sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
            sock.connect(remote)
        return sock

    return in_namespace(name, work)


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def wire(home, name, number=1):
    """A way between the two: without one nothing can come from there."""
    ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name, netns=home)


@pytest.fixture
def home():
    with inside() as name:
        ip("addr", "add", "198.18.78.1/32", "dev", "lo", netns=name)
        yield name


@pytest.fixture
def container(home):
    with made() as name:
        wire(home, name)
        ip("addr", "add", "198.18.77.2/32", "dev", "lo", netns=name)
        yield name


@pytest.fixture
def directory(home):
    with NamespaceIndex(ttl=0) as directory:
        yield directory


def number(name):
    return os.stat(f"/run/netns/{name}").st_ino


def test_home_comes_first(directory, home):
    assert directory.namespaces() == {number(home): "home"}
    with udp(home, "198.18.78.1") as sock:
        found = find_socket(directory, UDP, "198.18.78.1", sock.getsockname()[1], "8.8.8.8", 53)
        assert found[0] == number(home) and found[1]["inode"] == inode(sock)
    assert find_socket(directory, UDP, "198.18.78.1", 1, "8.8.8.8", 53) is None


def test_container_is_found_by_the_link_to_it(directory, home):
    assert not directory.refresh()  # no cause yet
    with made() as name:
        wire(home, name)
        assert directory.refresh() and number(name) in directory.namespaces()
        assert not directory.refresh()


def test_container_is_found_once_asked_for(home, container):
    with NamespaceIndex(ttl=0) as directory, udp(container, "198.18.77.2") as sock:
        assert not directory.refresh()  # the link was there before
        ask = (UDP, "198.18.77.2", sock.getsockname()[1], "8.8.8.8", 53)
        with pytest.raises(LookupError):
            find_socket(directory, *ask)
        assert directory.refresh()
        assert directory.namespaces()[number(container)] == container
        found = find_socket(directory, *ask)
        assert found[0] == number(container)
        assert found[1]["inode"] == inode(sock)
        assert not directory.refresh()
        sock.close()
        assert find_socket(directory, *ask) is None


def known(directory, *addresses):
    """Have the index search for the namespaces of these addresses."""
    for address in addresses:
        with pytest.raises(LookupError):
            find_socket(directory, UDP, address, 1, "8.8.8.8", 53)
    assert directory.refresh()


def test_listener_in_container(directory, container):
    known(directory, "198.18.77.2")

    def work():
        sock = socket.create_server(("198.18.77.2", 0))
        return sock

    with in_namespace(container, work) as sock:
        ask = (TCP, "198.18.77.2", sock.getsockname()[1], "8.8.8.8", 5000)
        for listener in (True, False):
            found = find_socket(directory, *ask, listener=listener)
            assert found[1]["inode"] == inode(sock) and found[1]["kind"] == "listener"


def test_address_added_later(directory, container):
    known(directory, "198.18.77.2")
    ip("addr", "add", "198.19.77.2/32", "dev", "lo", netns=container)
    with udp(container, "198.19.77.2") as sock:

        def found():
            try:
                return find_socket(directory, UDP, "198.19.77.2", sock.getsockname()[1], "8.8.8.8", 53)
            except LookupError:
                return None

        assert until(found)[1]["inode"] == inode(sock)


def test_container_with_a_whole_network_of_its_own(directory, container):
    ip("route", "add", "local", "198.20.0.0/15", "dev", "lo", netns=container)
    known(directory, "198.21.3.4")
    with udp(container, "198.21.3.4") as sock:
        found = find_socket(directory, UDP, "198.21.3.4", sock.getsockname()[1], "8.8.8.8", 53)
        assert found[0] == number(container) and found[1]["inode"] == inode(sock)
    with pytest.raises(LookupError):
        find_socket(directory, UDP, "198.22.0.1", 1, "8.8.8.8", 53)


def test_same_address_twice(directory, home, container):
    with made() as second:
        wire(home, second, 2)
        ip("addr", "add", "198.18.77.2/32", "dev", "lo", netns=second)
        known(directory, "198.18.77.2")
        with udp(container, "198.18.77.2") as sock:
            port = sock.getsockname()[1]
            ask = (UDP, "198.18.77.2", port, "8.8.8.8", 53)
            assert find_socket(directory, *ask)[1]["inode"] == inode(sock)
            with udp(second, "198.18.77.2", port):
                assert {space for space, _ in find_sockets(directory, *ask)} == {number(container), number(second)}
            assert find_socket(directory, *ask)[0] == number(container)


def test_home_has_the_address_too(directory, container, home):
    known(directory, "198.18.77.2")
    ip("addr", "add", "198.18.77.2/32", "dev", "lo", netns=home)
    with udp(container, "198.18.77.2") as sock:
        ask = (UDP, "198.18.77.2", sock.getsockname()[1], "8.8.8.8", 53)
        assert find_socket(directory, *ask)[0] == number(container)  # the change is not known yet

        def has_heard():
            refresh_addresses(directory)
            return find_socket(directory, *ask) is None

        # It rests for twenty times as long as it last took to read home's addresses.
        until(has_heard)


def test_loopback_is_home(directory, container):
    known(directory, "198.18.77.2")
    with udp(container, "127.0.0.1") as sock:
        assert find_socket(directory, UDP, "127.0.0.1", sock.getsockname()[1], "127.0.0.1", 53) is None


def test_lets_go_of_what_is_gone(directory, home):
    with made() as name:
        gone = number(name)
        wire(home, name)
        ip("addr", "add", "198.18.77.9/32", "dev", "lo", netns=name)
        known(directory, "198.18.77.9")
        assert gone in directory.namespaces()
        descriptors = len(os.listdir("/proc/self/fd"))
    assert directory.refresh()
    assert gone not in directory.namespaces()
    assert len(os.listdir("/proc/self/fd")) == descriptors - 5
    with pytest.raises(LookupError):
        find_socket(directory, UDP, "198.18.77.9", 1, "8.8.8.8", 53)


def test_witness_may_change(directory, home):
    """The process a namespace was found by is gone, another keeps it."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Child(["unshare", "-n", *command], **pipes) as first:
        first.stdout.readline()
        space = os.stat(f"/proc/{first.pid}/ns/net").st_ino
        with Child(["nsenter", f"--net=/proc/{first.pid}/ns/net", *command], **pipes) as second:
            second.stdout.readline()
            known(directory, "198.18.77.77")
            assert directory.namespaces()[space] == f"pid:{min(first.pid, second.pid)}"
            first.communicate(b"\n")
            assert directory.refresh()
            assert directory.namespaces()[space] == f"pid:{second.pid}"
            second.communicate(b"\n")
        assert directory.refresh()
        assert space not in directory.namespaces()


def test_limit(home, container):
    with made(), NamespaceIndex(ttl=0, limit=1) as directory:
        known(directory, "198.18.77.77")
        assert len(directory.namespaces()) == 2 and directory.skipped >= 1


def test_ttl(home, container):
    with NamespaceIndex(ttl=60) as directory:
        known(directory, "198.18.77.77")
        with pytest.raises(LookupError):
            find_socket(directory, UDP, "198.18.77.78", 1, "8.8.8.8", 53)
        assert not directory.refresh()


def test_other_home(container):
    [space] = netns.resolve(container)
    before = netns.current()
    with space, NamespaceIndex(space) as directory:
        assert netns.current() == before
        assert directory.namespaces() == {number(container): container}
        with udp(container, "198.18.77.2") as sock:
            found = find_socket(directory, UDP, "198.18.77.2", sock.getsockname()[1], "8.8.8.8", 53)
            assert found[1]["inode"] == inode(sock)


def test_link_local_socket(home):
    ip("link", "add", "nfdiag0", "type", "veth", "peer", "name", "nfdiag1", netns=home)
    for name in ("nfdiag0", "nfdiag1"):
        ip("link", "set", name, "up", netns=home)
    ip6_address("fe80::77", 64, "nfdiag0", home)
    index = socket.if_nametoindex("nfdiag0")
    with NamespaceIndex() as directory, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.connect(("fe80::99", 9, 0, index))
        local = sock.getsockname()[0].split("%")[0]
        found = find_socket(directory, UDP, local, sock.getsockname()[1], "fe80::99", 9)
        assert found[1]["inode"] == inode(sock) and found[1]["kind"] == "exact"


def test_closed(directory):
    directory.close()
    directory.close()
    with pytest.raises(LookupError):
        find_socket(directory, UDP, "198.18.78.1", 1, "8.8.8.8", 53)
    with pytest.raises(ValueError):
        directory.refresh()
