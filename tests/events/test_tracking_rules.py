"""The nftables table of --track exists while the program runs, is gone however it ends, and no other rule changes."""

import signal
import socket
import subprocess

import pytest

from nfct_fast.events.tracking_rules import TrackingTable
from support.cli import Program, inside, until
from support.nftables import ruleset, tables

USER = """
table inet filter {
  set friends { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }
  chain input { type filter hook input priority 0; policy accept; ip saddr @friends counter accept; }
}
table ip nat { chain post { type nat hook postrouting priority 100; ip saddr 10.0.0.0/8 masquerade; }; }
"""


def without_ours(rules):
    def ours(thing):
        [(kind, value)] = thing.items()
        return (value.get("table") or value.get("name") or "").startswith("nfct_fast_")

    return [thing for thing in rules if not ours(thing)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("user", ["", USER])
def test_the_table_is_gone_afterwards_and_other_rules_are_unchanged(netns, user, number):
    subprocess.run(inside(netns, ["nft", "-f", "-"]), input=user.encode(), check=True)
    before = ruleset(netns)
    with Program(netns, "--track") as program:
        during = ruleset(netns)
        program.end(number)
    assert without_ours(during) == before and len(during) > len(before)
    until(lambda: ruleset(netns) == before)


def test_it_goes_with_a_failing_output(netns, within):
    with open("/dev/full", "wb") as full, Program(netns, "--track", "-p", "udp", stdout=full) as program:
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
            assert program.wait(2) == 1
    assert tables(netns) == []


def test_two_beside_each_other(netns, within):
    with Program(netns, "--track", "-p", "udp") as first, Program(netns, "--track", "-p", "udp") as second:
        assert len(set(tables(netns))) == 2
        first.end(signal.SIGKILL)
        until(lambda: len(tables(netns)) == 1)
        with within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
            second.await_lines(1)
        second.end()
    assert tables(netns) == []


def test_nobody_else_can_change_it(netns, within):
    with within(), TrackingTable() as table:
        deleted = subprocess.run(inside(netns, ["nft", "delete", "table", "inet", table.name]), capture_output=True)
        flushed = subprocess.run(inside(netns, ["nft", "flush", "ruleset"]), capture_output=True)
        assert deleted.returncode != 0 and flushed.returncode == 0
        assert tables(netns) == [table.name]
    assert tables(netns) == []
    table.close()
