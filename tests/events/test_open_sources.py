"""Which namespaces are monitored, and what is reported about those that cannot be."""

import os
import re
import resource
import socket
import subprocess
import threading
from contextlib import ExitStack

import pytest

from nfct_fast import Conntrack
from nfct_fast.kernel.netns import Netns
from support.cli import COMMAND, SECONDS, Program, inside, until
from support.netns import ip, made, use_conntrack


def send_datagram(space, family=socket.AF_INET, address="127.0.0.1"):
    """One datagram over the namespace's loopback, from a socket that stays open."""
    with space.entered():
        sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.connect((address, 9))
    sender.send(b"x")
    return sender


def heard(conntrack, sender):
    """The flow of a sender's datagram."""
    port = sender.getsockname()[1]
    timer = threading.Timer(SECONDS, conntrack.close)
    timer.start()
    try:
        return next(flow for flow in conntrack if flow.sport == port and flow.dport == 9)
    finally:
        timer.cancel()


@pytest.mark.parametrize("by", ["name", "path", "pid"])
def test_another_namespace_is_heard(tracked, by):
    with Netns(f"/run/netns/{tracked}", tracked) as space:
        spec = {"name": tracked, "path": f"/run/netns/{tracked}"}.get(by)
        child = os.fork()
        if child == 0:
            with space.entered():
                threading.Event().wait(60)
            os._exit(0)
        try:
            while os.stat(f"/proc/{child}/ns/net").st_ino != space.inode:
                os.sched_yield()
            with Conntrack(netns=spec or str(child), protocol="udp") as conntrack, send_datagram(space) as sender:
                flow = heard(conntrack, sender)
            assert (flow.netns, flow.owner.pid, flow.direction) == (space.inode, os.getpid(), "local")
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def test_own_namespace_is_not_left(tracked):
    before = os.stat("/proc/thread-self/ns/net").st_ino
    with Conntrack(netns=tracked):
        assert os.stat("/proc/thread-self/ns/net").st_ino == before


@pytest.mark.root
@pytest.mark.parametrize("attribution", ["auto", "off"])
def test_netns_all_monitors_each_namespace(attribution):
    with ExitStack() as stack:
        names = [stack.enter_context(made()) for _ in range(3)]
        for name in names:
            use_conntrack(name)
        spaces = [stack.enter_context(Netns(f"/run/netns/{name}", name)) for name in names]
        with Conntrack(netns="all", protocol="udp", probe=False, attribution=attribution) as conntrack:
            for space in spaces:
                with send_datagram(space) as sender:
                    flow = heard(conntrack, sender)
                assert (flow.netns, flow.owner.pid) == (space.inode, os.getpid() if attribution == "auto" else None)


@pytest.mark.root
def test_hundreds_are_heard():
    """More than a byte can count, and than a process may usually have open files for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        names = [stack.enter_context(made(up=False)) for _ in range(300)]
        spaces = sorted(
            (stack.enter_context(Netns(f"/run/netns/{name}", name)) for name in names), key=lambda space: space.inode
        )
        ends = [spaces[0], spaces[150], *spaces[-2:]]
        for space in ends:
            ip("link", "set", "lo", "up", netns=space.name)
            use_conntrack(space.name)
        program = stack.enter_context(
            Program(
                names[0],
                "--netns",
                "all",
                "-p",
                "ipv6/udp",
                "-f",
                "{ev.netns} {ev.sport} {info.pid}",
                prefix=("prlimit", f"--nofile=1024:{hard}"),
            )
        )
        for space in ends:
            # Events of other namespaces of this host are received, too: there are fewer of IPv6.
            with send_datagram(space, socket.AF_INET6, "::1") as sender:
                line = f"{space.inode} {sender.getsockname()[1]} {os.getpid()}"
                until(lambda: line in program.lines, what=line)
        assert program.end()[0] == 0


def test_too_many_are_told_once(netns):
    """There is room for few of 40 namespaces: the program's own is monitored, and that others are not is reported."""
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(made(up=False))
        program = stack.enter_context(
            Program(netns, "--netns", "all", "--attribution", "off", "--debug", prefix=("prlimit", "--nofile=100:100"))
        )
        until(lambda: any("not monitored" in line for line in program.complaints))
        assert program.end()[0] == 0
    [line] = [line for line in program.complaints if "not monitored" in line]
    assert "there are too many; at most 9 can be monitored at once" in line
    assert int(re.search(r"unmonitored=(\d+)", program.complaints[-1])[1]) >= 31


def test_too_few_descriptors_are_told_with_what_to_do(netns):
    result = subprocess.run(
        inside(netns, ["prlimit", "--nofile=12:12", *COMMAND, "--netns", "all", "--attribution", "off"]),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert (
        result.stderr.startswith("nfct-fast: too many open files: each monitored network namespace")
        and "ulimit -n" in result.stderr
    )


def test_unknown_namespace_names_those_there_are(tracked):
    with pytest.raises(FileNotFoundError, match=tracked):
        Conntrack(netns="nfct-no-such")
