"""At the start the program says why no event can arrive, and what to do about it."""

import errno
import itertools
import shlex
import socket
import struct
import subprocess
import time
from contextlib import ExitStack, closing

import pytest

from nfct_fast import Conntrack
from nfct_fast.events import preflight
from nfct_fast.events.preflight import NO_MODULE, Probe, await_answers
from support.cli import Program, inside, until
from support.netns import ip, made


def set_events(netns, value):
    subprocess.run(inside(netns, ["sysctl", "-qw", f"net.netfilter.nf_conntrack_events={value}"]), check=True)


def complaints(netns, *arguments):
    with Program(netns, *arguments) as program:
        program.end()
    return program.complaints


def test_nothing_is_reported_where_flows_are_tracked(tracked):
    assert complaints(tracked) == []


def test_no_rule_uses_conntrack(netns):
    [line] = complaints(netns)
    assert "no firewall rule in this network namespace uses conntrack" in line and "--track" in line


def test_what_is_advised_against_no_rule_helps(netns):
    [line] = complaints(netns)
    subprocess.run(inside(netns, shlex.split(line.split("`")[1])), check=True)
    assert complaints(netns) == []


def test_track_helps_against_no_rule(netns):
    [line] = complaints(netns, "--track")
    assert "connection tracking is turned on" in line


@pytest.mark.parametrize(("family", "silent"), [("ip", "IPv6"), ("ip6", "IPv4")])
def test_one_family_alone_is_tracked(netns, family, silent):
    rules = f"table {family} user {{ chain c {{ type filter hook output priority 0; ct state new counter; }}; }}"
    subprocess.run(inside(netns, ["nft", rules]), check=True)
    [line] = complaints(netns)
    assert f"{silent} flows are not tracked" in line


def test_events_are_off(tracked):
    set_events(tracked, 0)
    [line] = complaints(tracked)
    assert "nf_conntrack_events is 0" in line
    command = line.split("`")[1]
    subprocess.run(inside(tracked, command.split()), check=True)
    assert complaints(tracked) == []


def reasons(**options):
    with closing(Probe(**options)) as probe:
        await_answers([probe])
        return probe.reasons()


def test_a_machine_that_stands_still_does_not_make_flows_untracked(tracked, within, monkeypatch):
    """The time is over when it goes on, and the events are there."""
    with within():
        clock = itertools.count(time.monotonic())
        monkeypatch.setattr(preflight.time, "monotonic", lambda: float(next(clock)))
        assert reasons() == []


@pytest.mark.root
def test_many_silent_namespaces_are_asked_at_once():
    with ExitStack() as stack:
        names = [stack.enter_context(made()) for _ in range(20)]
        began = time.monotonic()
        with Conntrack(netns="all", attribution="off") as conntrack:
            assert time.monotonic() - began < 10  # one after the other they take twenty
        assert {
            name
            for name in names
            if any(f" {name}: new flows are not tracked" in line for line in conntrack.no_event_reasons)
        } == set(names)


def test_loopback_is_down(netns, within):
    ip("addr", "flush", "dev", "lo", netns=netns)
    with within():
        [reason] = reasons()
    assert "could not test" in reason


def test_any_event_will_do_once_the_own_one_may_be_lost(tracked, within):
    with within(), closing(Probe()) as probe:
        for flow in probe._flows.values():
            flow._ports = [b"lost"]  # as if its event were among those that do not fit into the buffer
        for _ in range(3000):
            for family, loopback in preflight._LOOPBACK.values():
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"", (loopback, 9))
        await_answers([probe])
        assert probe._overrun
        assert probe.reasons() == []


def test_without_probe_only_what_the_kernel_says(netns, within):
    with within():
        assert reasons(try_loopback=False) == []
        with Conntrack(probe=False) as conntrack:
            assert conntrack.no_event_reasons == ()
        with Conntrack() as conntrack:
            assert len(conntrack.no_event_reasons) == 1


class NoModule(socket.socket):
    """A netlink socket of a kernel that has nfnetlink, but nothing that answers for conntrack."""

    def recv(self, size):
        answer = super().recv(size)
        request = struct.pack("=IHHII", 20, (1 << 8) | 5, 5, 1, 0)
        return struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno.EINVAL) + request if answer else answer


def _no_nfnetlink(*arguments):
    raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")


# A kernel without the module cannot be had here: what it answers (nfnetlink_rcv_msg, __sock_create) is put in its
# place.
@pytest.mark.parametrize("kernel", [NoModule, _no_nfnetlink])
def test_the_module_is_missing(netns, within, monkeypatch, kernel):
    monkeypatch.setattr(preflight.socket, "socket", kernel)
    with within():
        assert reasons() == [NO_MODULE]
    assert "modprobe nf_conntrack_netlink" in NO_MODULE


def test_a_flow_of_the_probe_is_not_printed(tracked):
    with Program(tracked) as program:
        until(lambda: True)
        program.end()
    assert program.lines == []
