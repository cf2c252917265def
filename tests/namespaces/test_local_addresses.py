"""Local addresses follow "ip addr" and "ip route" at once; the truth is what was just set."""

import socket
import subprocess
import time

import pytest

from nfct_fast.namespaces.local_addresses import LocalAddresses
from support.netns import inside, ip, ip6_address

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def namespace():
    with inside() as name:
        yield name


@pytest.fixture
def addresses(namespace):
    with LocalAddresses() as addresses:
        yield addresses


def test_loopback_is_local_always(addresses, namespace):
    ip("link", "set", "lo", "down", netns=namespace)
    assert addresses.update()
    for address in ("127.0.0.1", "127.255.3.4", "::1", "::ffff:127.0.0.1"):
        assert addresses.ifindex(address) == 1
    for address in ("126.255.255.255", "128.0.0.0", "0.0.0.0", "::", "::2", "10.0.0.1", "255.255.255.255"):
        assert address not in addresses


def test_known_at_start(namespace):
    ip("addr", "add", "10.1.0.1/24", "dev", "lo", netns=namespace)
    ip("addr", "add", "2001:db8::1/64", "dev", "lo", netns=namespace)
    with LocalAddresses() as addresses:
        assert "10.1.0.1" in addresses and "2001:db8::1" in addresses


def test_added_and_removed(addresses, namespace):
    assert not addresses.update()
    for address in ("10.1.0.1", "2001:db8::1"):
        prefix = address + ("/24" if "." in address else "/64")
        assert address not in addresses
        ip("addr", "add", prefix, "dev", "lo", netns=namespace)
        assert addresses.update() and address in addresses
        ip("addr", "del", prefix, "dev", "lo", netns=namespace)
        assert addresses.update() and address not in addresses
    assert not addresses.update()


def test_neighbours_broadcast_and_multicast_are_not_local(addresses, namespace):
    ip("link", "add", "nfdiag0", "type", "veth", "peer", "name", "nfdiag1", netns=namespace)
    ip("link", "set", "nfdiag0", "up", netns=namespace)
    ip("addr", "add", "10.1.0.1/24", "brd", "+", "dev", "nfdiag0", netns=namespace)
    ip6_address("fe80::77", 64, "nfdiag0", namespace)
    addresses.update()
    index = socket.if_nametoindex("nfdiag0")
    assert addresses.ifindex("10.1.0.1") == addresses.ifindex("fe80::77") == index
    for address in ("10.1.0.0", "10.1.0.2", "10.1.0.255", "224.0.0.1", "ff02::1", "fe80::78", "fe80::"):
        assert address not in addresses


def test_follows_links(addresses, namespace):
    """IPv4 addresses stay while their link is down, IPv6 ones do not, and none outlives the link."""
    ip("link", "add", "nfdiag0", "type", "veth", "peer", "name", "nfdiag1", netns=namespace)
    ip("link", "set", "nfdiag0", "up", netns=namespace)
    ip("addr", "add", "10.1.0.1/24", "dev", "nfdiag0", netns=namespace)
    ip6_address("2001:db8::1", 64, "nfdiag0", namespace)
    addresses.update()
    assert "10.1.0.1" in addresses and "2001:db8::1" in addresses
    for change, ipv4, ipv6 in (("set", "down"), True, False), (("set", "up"), True, False), (("del",), False, False):
        ip("link", change[0], "nfdiag0", *change[1:], netns=namespace)
        addresses.update()
        assert ("10.1.0.1" in addresses) == ipv4 == kernel_says_local(socket.AF_INET, "10.1.0.1")
        assert ("2001:db8::1" in addresses) == ipv6 == kernel_says_local(socket.AF_INET6, "2001:db8::1")


def kernel_says_local(family, address):
    """An address that is not local cannot be bound to."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


@pytest.mark.parametrize(
    "prefix, inside, outside",
    [
        ("10.9.0.0/16", ["10.9.0.0", "10.9.3.4", "10.9.255.255"], ["10.8.255.255", "10.10.0.0"]),
        ("10.9.8.0/21", ["10.9.8.0", "10.9.15.255"], ["10.9.7.255", "10.9.16.0"]),
        ("2001:db8:9::/48", ["2001:db8:9::", "2001:db8:9:ffff::1"], ["2001:db8:8:ffff::", "2001:db8:a::"]),
        ("2001:db8:9::8/127", ["2001:db8:9::8", "2001:db8:9::9"], ["2001:db8:9::7", "2001:db8:9::a"]),
    ],
)
def test_local_prefix(addresses, namespace, prefix, inside, outside):
    ip("route", "add", "local", prefix, "dev", "lo", netns=namespace)
    assert addresses.update()
    assert all(address in addresses for address in inside)
    assert not any(address in addresses for address in outside)
    ip("route", "del", "local", prefix, "dev", "lo", netns=namespace)
    assert addresses.update()
    assert not any(address in addresses for address in inside)


def test_several_prefixes(addresses, namespace):
    for i in range(20):
        ip("route", "add", "local", f"10.{i}.0.0/16", "dev", "lo", netns=namespace)
    addresses.update()
    assert all((f"10.{i}.1.2" in addresses) == (i < 20) for i in range(40))


def test_everything_local(addresses, namespace):
    ip("route", "add", "local", "default", "dev", "lo", netns=namespace)
    assert addresses.update()
    assert "8.8.8.8" in addresses and "2001:db8::1" not in addresses


def test_everything_of_ipv6_is_nothing_of_ipv4(addresses, namespace):
    ip("-6", "route", "add", "local", "default", "dev", "lo", netns=namespace)
    assert addresses.update()
    assert "2001:db8::1" in addresses and "8.8.8.8" not in addresses


def test_the_longest_prefix_decides(addresses, namespace):
    ip("link", "add", "nfdiag0", "type", "veth", "peer", "name", "nfdiag1", netns=namespace)
    ip("link", "set", "nfdiag0", "up", netns=namespace)
    index = socket.if_nametoindex("nfdiag0")
    for prefix, device in (
        ("10.0.0.0/8", "lo"),
        ("10.9.0.0/16", "nfdiag0"),
        ("10.9.8.0/24", "lo"),
        ("10.9.8.7/32", "nfdiag0"),
    ):
        ip("route", "add", "local", prefix, "dev", device, netns=namespace)
    addresses.update()
    for address, expected in (("10.1.1.1", 1), ("10.9.1.1", index), ("10.9.8.1", 1), ("10.9.8.7", index)):
        assert addresses.ifindex(address) == expected


def test_tens_of_thousands_of_prefixes(addresses, namespace):
    """Reading them was quadratic, and then every look-up went through all: 0.2 s, and 40 us at 10,000."""

    def lookup():
        began = time.perf_counter()
        for _ in range(300):
            assert "203.0.113.1" not in addresses
        return time.perf_counter() - began

    few = min(lookup() for _ in range(5))
    batch(namespace, [f"route add local 10.{i >> 14}.{i >> 6 & 255}.{(i & 63) * 4}/30 dev lo" for i in range(50_000)])
    began = time.process_time()
    assert addresses.update()
    assert time.process_time() - began < 1
    assert min(lookup() for _ in range(5)) < 3 * few
    assert "10.0.1.5" in addresses and "10.3.13.61" in addresses and "10.4.0.1" not in addresses


def test_routes_of_a_transparent_proxy_are_no_local_addresses(addresses, namespace):
    ip("route", "add", "local", "default", "dev", "lo", "table", "100", netns=namespace)
    addresses.update()
    assert "8.8.8.8" not in addresses


def test_other_routes_do_not_wake(addresses, namespace):
    ip("route", "add", "10.20.0.0/16", "dev", "lo", netns=namespace)
    ip("-6", "route", "add", "2001:db8:20::/48", "dev", "lo", netns=namespace)
    assert not addresses.update()
    assert "10.20.0.1" not in addresses


def batch(netns, lines):
    subprocess.run(
        ["ip", "-n", netns, "-batch", "-"], input="\n".join(lines), text=True, check=True, capture_output=True
    )


def test_many_addresses_and_overrun(addresses, namespace):
    several = [f"10.{i // 250}.{i % 250}.1" for i in range(1500)]
    batch(namespace, [f"addr add {address}/32 dev lo" for address in several])
    assert addresses.update()
    assert addresses.overruns >= 1  # 3,000 messages do not fit into the socket's buffer
    assert all(address in addresses for address in several) and "10.6.1.1" not in addresses
    batch(namespace, [f"addr del {address}/32 dev lo" for address in several[1:]])
    assert addresses.update()
    assert several[0] in addresses and not any(address in addresses for address in several[1:])
    assert not addresses.update()


def test_stays_in_its_namespace(addresses, namespace):
    with inside() as other:
        ip("addr", "add", "10.1.0.1/24", "dev", "lo", netns=other)
        assert not addresses.update()
        ip("addr", "add", "10.2.0.1/24", "dev", "lo", netns=namespace)
        assert addresses.update()
        assert "10.2.0.1" in addresses and "10.1.0.1" not in addresses


def test_closed(addresses):
    assert addresses.fileno() >= 0
    addresses.close()
    addresses.close()
    assert addresses.fileno() == -1 and "127.0.0.1" in addresses
    with pytest.raises(ValueError):
        addresses.update()
