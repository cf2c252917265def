"""Whose namespaces are monitored, with how much receive memory, if there is not enough for everyone."""

from collections import Counter, namedtuple

import pytest

from nfct_fast.events.receive_memory import ReceiveMemory, Share
from nfct_fast.kernel.netlink import NetlinkSocket
from nfct_fast.monitoring.quotas import OURS, Quotas, owner

SECOND = 1_000_000_000
NOW = 1_000 * SECOND
Held = namedtuple("Held", "owner active number")


class Host:
    """The places taken: each new namespace comes one second after the last."""

    def __init__(self, places):
        self.quotas = Quotas(places, 256 << 20, 1 << 20)
        self.held, self.now, self.number = [], NOW, 0

    def come(self, who):
        self.now += SECOND
        self.number += 1
        place = self.quotas.admit(who, self.held, self.now)
        if place is False:
            return False
        if place is not True:
            self.held.remove(place)
        self.held.append(Held(who, self.now, self.number))
        return True

    def counts(self):
        return Counter(held.owner for held in self.held)


@pytest.mark.parametrize("who", [(1000, 0), (0, 4026531900)])
def test_one_user_has_a_fourth(who):
    host = Host(16)
    for _ in range(20):
        host.come(who)
    assert host.counts() == {who: 4}
    assert all(host.come(OURS) for _ in range(12)) and len(host.held) == 16


def test_users_together_leave_a_fourth_to_root():
    host = Host(16)
    for number in range(100):
        host.come((1000 + number % 10, 0))
    assert sum(host.counts().values()) == 12 and max(host.counts().values()) <= 2
    assert all(host.come(OURS) for _ in range(4)) and host.counts()[OURS] == 4 and len(host.held) == 16


def test_root_needs_more_than_that_and_takes_it_from_who_has_most():
    host = Host(16)
    for _ in range(4):
        host.come((1000, 0))
    for number in range(8):
        host.come((2000 + number, 0))
    assert all(host.come(OURS) for _ in range(7)) and len(host.held) == 16
    assert host.counts()[OURS] == 7 and host.counts()[1000, 0] == 1
    assert all(host.counts()[2000 + number, 0] == 1 for number in range(8))


def test_those_with_traffic_stay():
    host = Host(16)
    for _ in range(4):
        host.come((1000, 0))
    busy = host.held[0]
    host.now += 100 * SECOND
    host.held[0] = busy._replace(active=host.now)
    assert host.come((1000, 0)) and host.held[0].number == busy.number and len(host.held) == 4
    assert {held.number for held in host.held} == {1, 3, 4, 5}
    host.held = [held._replace(active=host.now) for held in host.held]
    assert not host.come((1000, 0))


def test_whose():
    assert owner(None, 0) is OURS
    assert owner(1000, 1) == owner(1000, 2) != owner(1001, 1)
    # Each user namespace that root made counts as an owner: containers with users of their own.
    assert owner(0, 1) != owner(0, 2) and owner(-1, 1) != owner(-1, 2)


def test_memory_is_bounded_and_given_back():
    sockets = [NetlinkSocket(12) for _ in range(8)]
    receive_memory = ReceiveMemory(1 << 20, 1 << 16, 8)
    ours, theirs = Share(receive_memory, 1 << 20), Share(receive_memory, 1 << 17)
    ours.open(sockets[0], 1 << 20)
    assert receive_memory.used == (1 << 20) - 7 * (1 << 16) == sockets[0].rcvbuf // 2
    for sock in sockets[1:]:
        theirs.open(sock, 1 << 18)  # each its least, whatever else there is
        assert sock.rcvbuf == 1 << 17
    assert receive_memory.used == 1 << 20
    ours.close(sockets[0])
    assert receive_memory.used == 7 << 16
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("memory", [4096, 1 << 16, 1 << 20, 256 << 20])
def test_little_memory_is_for_few(memory):
    quotas = Quotas(1024, memory, 64 << 20)
    assert 1 <= quotas.capacity <= 1024 and quotas.capacity * 4096 <= max(4096, memory)
    share, size = quotas.memory(OURS)
    with_user, least = quotas.memory((1000, 0))
    assert size >= 4096 <= least and with_user.limit <= memory
