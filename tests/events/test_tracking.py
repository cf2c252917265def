"""--track changes as little on the host as was asked for, changes nothing of others, and says what it did."""

import ctypes
import os
import select
import signal
import socket
import subprocess
import time

import pytest

from nfct_fast import Conntrack
from nfct_fast.events.tracking_rules import TrackingTable
from nfct_fast.filters.flow_filter import FlowFilter
from support.cli import Program, inside, until
from support.nftables import tables

FAMILIES = {"ipv4": (socket.AF_INET, "127.0.0.1"), "ipv6": (socket.AF_INET6, "::1")}


def entries(netns):
    """Protocols that the conntrack table has entries of."""
    found = set()
    for family in FAMILIES:
        lines = subprocess.run(
            inside(netns, ["conntrack", "-L", "-f", family]), check=True, capture_output=True, text=True
        ).stdout
        found |= {f"{family}/{line.split()[0]}" for line in lines.splitlines()}
    return found


def traffic(within):
    """A flow of each family and of TCP, UDP and ICMP."""
    with within():
        for family, address in FAMILIES.values():
            with (
                socket.create_server((address, 0), family=family) as server,
                socket.create_connection(server.getsockname()[:2]) as client,
                socket.socket(family, socket.SOCK_DGRAM) as sender,
            ):
                server.accept()[0].close()
                sender.sendto(b"x", (address, 9))
                client.close()
        for family, address, proto, kind in ((socket.AF_INET, "127.0.0.1", 1, 8), (socket.AF_INET6, "::1", 58, 128)):
            with socket.socket(family, socket.SOCK_RAW, proto) as ping:
                ping.sendto(bytes([kind, 0]) + (b"\xf7\xfd" if proto == 1 else b"\0\0") + b"\0\1\0\1", (address, 0))


ALL = {f"{family}/{proto}" for family in FAMILIES for proto in ("tcp", "udp", "icmp")} - {"ipv6/icmp"} | {"ipv6/icmpv6"}


@pytest.mark.parametrize(
    ("pattern", "tracked"),
    [
        ("udp", {"ipv4/udp", "ipv6/udp"}),
        ("^ipv4/", {"ipv4/tcp", "ipv4/udp", "ipv4/icmp"}),
        ("^ipv6/tcp$", {"ipv6/tcp"}),
        ("^ipv4/tcp$|^ipv6/udp$", {"ipv4/tcp", "ipv6/udp"}),
        ("^ipv4/|^ipv6/udp$", {"ipv4/tcp", "ipv4/udp", "ipv4/icmp", "ipv6/udp"}),
        ("/[^t]", ALL - {"ipv4/tcp", "ipv6/tcp"}),
        (".", ALL),
    ],
)
def test_only_what_is_wanted_is_tracked(netns, within, pattern, tracked):
    with Program(netns, "--track", "-p", pattern) as program:
        traffic(within)
        assert entries(netns) == tracked
        until(lambda: {proto for proto, _, _ in program.flows()} == tracked)
        program.end()
    assert tables(netns) == []


@pytest.mark.parametrize(
    ("words", "tracked"),
    [
        (["udp", "and", "user", "root"], {"ipv4/udp", "ipv6/udp"}),
        (["src ::1 and dport 1-65535"], {"ipv6/tcp", "ipv6/udp"}),
        (["not", "(tcp or icmp)", "comm", "*"], ALL - {"ipv4/tcp", "ipv6/tcp", "ipv4/icmp"}),
    ],
)
def test_only_what_a_filter_can_match_is_tracked(netns, within, words, tracked):
    with Program(netns, "--track", *words) as program:
        traffic(within)
        assert entries(netns) == tracked
        program.end()


USERS = "table inet user { chain seen { type filter hook output priority 0; ct state new counter; }; }"


def test_others_that_were_there_are_left_alone(tracked, within):
    """A rule of theirs needs the state of every packet."""
    with Program(tracked, "--track", "-p", "udp") as program:
        traffic(within)
        assert entries(tracked) == ALL
        program.end()


@pytest.mark.parametrize(
    "rules",
    [
        USERS,
        "table ip nat { chain out { type nat hook output priority -100; }; }",
        "table ip plain { chain in { type filter hook input priority 0; accept; }; }",
    ],
)
def test_others_that_come_are_left_alone(netns, within, rules):
    with Program(netns, "--track", "-p", "udp") as program:
        traffic(within)
        assert entries(netns) == {"ipv4/udp", "ipv6/udp"}
        subprocess.run(inside(netns, ["nft", rules]), check=True)
        until(lambda: any("all protocols are tracked from now on" in line for line in program.complaints))
        traffic(within)
        assert entries(netns) == ALL
        until(lambda: program.lines)
        assert program.end()[0] == 0
    assert all(line.split(":")[1].startswith((" ipv4/udp", " ipv6/udp")) for line in program.lines)


def test_iptables_legacy_is_left_alone(netns, within):
    """Its tables are made in a namespace when they are first asked for."""
    if not os.path.exists("/proc/net/ip_tables_names"):
        pytest.skip("this kernel has no iptables-legacy")
    with Program(netns, "--track", "-p", "udp") as program:
        traffic(within)
        assert entries(netns) == {"ipv4/udp", "ipv6/udp"}
        with within(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            info = ctypes.create_string_buffer(b"nat", 84)  # struct ipt_getinfo
            size = ctypes.c_uint(84)
            assert ctypes.CDLL(None).getsockopt(sock.fileno(), 0, 64, info, ctypes.byref(size)) == 0  # IPT_SO_GET_INFO
        until(lambda: any("all protocols are tracked from now on" in line for line in program.complaints))
        traffic(within)
        assert entries(netns) == ALL
        program.end()


def test_two_programs_that_want_different_things(netns, within):
    with Program(netns, "--track", "-p", "udp") as first, Program(netns, "--track", "-p", "tcp") as second:
        until(lambda: any("all protocols" in line for line in first.complaints))
        traffic(within)
        assert {"ipv4/udp", "ipv6/udp", "ipv4/tcp", "ipv6/tcp"} <= entries(netns)
        first.await_lines(2)
        second.await_lines(2)
        first.end()
        second.end()


def test_it_says_once_what_it_does(netns):
    with Program(netns, "--track") as program:
        time.sleep(1.5)
        assert program.end()[0] == 0
    [line] = program.complaints
    with open("/proc/sys/net/netfilter/nf_conntrack_max") as most:
        assert f"of at most {int(most.read())} entries" in line
    assert "nf_conntrack_max" in line and "the kernel drops new connections" in line


def test_it_warns_when_the_table_fills(netns, flood):
    with open("/proc/sys/net/netfilter/nf_conntrack_max") as file:
        most = int(file.read())
    if most > 1 << 19:
        pytest.skip(f"it would take long to make {most} entries")
    with Program(netns, "--track", "-p", "udp", "--attribution", "off", stdout=subprocess.DEVNULL) as program:
        made, number = 0, 1
        for percent, warned in ((60, []), (83, ["80"]), (97, ["80", "95"])):
            while made < most * percent // 100:
                made += flood(min(60_000, most * percent // 100 - made), 0, address=f"10.99.{number}.1")
                number += 1
            time.sleep(2.2)
            warnings = [line for line in program.complaints if "% full" in line]
            assert len(warnings) == len(warned), warnings
            assert all(int(line.split(" % full")[0].split()[-1]) >= int(level) for line, level in zip(warnings, warned))
        assert program.end()[0] == 0
    assert "the kernel drops new connections" in warnings[0]


def test_without_track_nothing_is_said(tracked, within):
    with within(), Conntrack(probe=False) as conntrack:
        assert conntrack.notices() == () and select.select([conntrack.notices_fileno()], [], [], 0)[0] == []


def test_a_child_that_lives_on_does_not_keep_it(netns, within):
    with within():
        table = TrackingTable(FlowFilter("udp").protocols, lambda: True)
    assert table.restricted and tables(netns) == [table.name]
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        table.close()
        assert tables(netns) == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_does_not_turn_it_off(netns, within):
    with within(), TrackingTable() as table:
        child = os.fork()
        if child == 0:
            table.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert tables(netns) == [table.name]
