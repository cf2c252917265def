"""Direction and NAT flags follow from the two tuples of a flow and the addresses of the namespace."""

import ipaddress

import pytest

from nfct_fast.namespaces.direction import direction_of_packed
from nfct_fast.namespaces.local_addresses import LocalAddresses
from support.netns import inside, ip

pytestmark = pytest.mark.root

HOST, HOST6, NEAR, FAR, FAR6 = "10.1.0.1", "2001:db8::1", "172.17.0.2", "8.8.8.8", "2001:db8:ffff::8"
LOOP = "127.0.0.1"


@pytest.fixture(scope="module")
def addresses():
    with inside() as name:
        ip("addr", "add", f"{HOST}/24", "dev", "lo", netns=name)
        ip("addr", "add", f"{HOST6}/64", "dev", "lo", netns=name)
        with LocalAddresses() as addresses:
            yield addresses


@pytest.mark.parametrize(
    "orig, reply, direction, nat",
    [
        ((HOST, 1000, FAR, 53), (FAR, 53, HOST, 1000), "out", set()),
        ((HOST6, 1000, FAR6, 53), (FAR6, 53, HOST6, 1000), "out", set()),
        ((FAR, 1000, HOST, 22), (HOST, 22, FAR, 1000), "in", set()),
        ((FAR6, 1000, HOST6, 22), (HOST6, 22, FAR6, 1000), "in", set()),
        ((LOOP, 1000, LOOP, 22), (LOOP, 22, LOOP, 1000), "local", set()),
        ((HOST, 1000, LOOP, 22), (LOOP, 22, HOST, 1000), "local", set()),
        ((NEAR, 1000, FAR, 53), (FAR, 53, NEAR, 1000), "forward", set()),
        # A container behind masquerade: the reply goes to a host address, the flow is still not the host's.
        ((NEAR, 1000, FAR, 53), (FAR, 53, HOST, 1000), "forward", {"snat"}),
        ((HOST, 1000, FAR, 53), (FAR, 53, HOST, 2000), "out", {"snat"}),
        # A published port: the host's address was asked for, a container answers.
        ((FAR, 1000, HOST, 80), (NEAR, 8080, FAR, 1000), "forward", {"dnat"}),
        ((FAR, 1000, HOST, 80), (HOST, 8080, FAR, 1000), "in", {"dnat"}),
        ((NEAR, 1000, FAR, 80), (HOST, 3128, NEAR, 1000), "in", {"dnat"}),
        ((HOST, 1000, FAR, 80), (LOOP, 3128, HOST, 1000), "local", {"dnat"}),
        # Hairpin: from a container over the host's address to another (or the same) container.
        ((NEAR, 1000, HOST, 80), (NEAR, 8080, HOST, 3000), "forward", {"snat", "dnat"}),
        ((FAR, 5353, "224.0.0.251", 5353), ("224.0.0.251", 5353, FAR, 5353), "in", set()),
        ((FAR, 68, "255.255.255.255", 67), ("255.255.255.255", 67, FAR, 68), "in", set()),
        ((FAR6, 5353, "ff02::fb", 5353), ("ff02::fb", 5353, FAR6, 5353), "in", set()),
        ((HOST, 5353, "224.0.0.251", 5353), ("224.0.0.251", 5353, HOST, 5353), "out", set()),
    ],
)
def test_direction(addresses, orig, reply, direction, nat):
    packed = [ipaddress.ip_address(part).packed if isinstance(part, str) else part for part in (*orig, *reply)]
    assert direction_of_packed(*packed, addresses) == (direction, nat)


def test_wrong_lengths(addresses):
    with pytest.raises(ValueError):
        direction_of_packed(b"1234", 1, b"123", 2, b"1234", 2, b"1234", 1, addresses)
