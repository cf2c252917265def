"""Which namespaces are heard, and what is said of those that cannot be."""
import os
import socket
import threading

import pytest

from nfct_fast import Conntrack
from nfct_fast.netns import Netns


def send_datagram(space):
    """One datagram over the namespace's loopback, from a socket that stays open."""
    with space.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", 9))
    sender.send(b"x")
    return sender


def heard(conntrack, sender, seconds=10):
    """The flow of a sender's datagram."""
    port = sender.getsockname()[1]
    timer = threading.Timer(seconds, conntrack.close)
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


def test_all_hears_each(tracked):
    with Netns(f"/run/netns/{tracked}", tracked) as space:
        with Conntrack(netns="all", protocol="udp", probe=False) as conntrack, send_datagram(space) as sender:
            flow = heard(conntrack, sender, 30)
        assert (flow.netns, flow.owner.pid) == (space.inode, os.getpid())


def test_unknown_namespace_names_those_there_are(tracked):
    with pytest.raises(FileNotFoundError, match=tracked):
        Conntrack(netns="nfct-no-such")
