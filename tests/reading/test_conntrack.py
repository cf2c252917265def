"""The public class Conntrack: flows as objects, waiting for them, and being woken."""

import os
import select
import socket
import threading
import time

import pytest

from nfct_fast import Conntrack, Flow, Stats, Status
from support.cli import SECONDS, until
from support.flows import send
from support.stopwatch import Stopwatch


@pytest.fixture
def inside_tracked(tracked, within):
    with within():
        yield tracked


def test_a_flow_and_its_owner(inside_tracked):
    with Conntrack(protocol="udp") as conntrack, send() as sender:
        before = time.time_ns()
        flow = next(conntrack)
        assert (flow.type, flow.proto, flow.src, flow.sport, flow.dst, flow.dport) == (
            "NEW",
            "ipv4/udp",
            "127.0.0.1",
            sender.getsockname()[1],
            "127.0.0.1",
            9,
        )
        assert flow.original == ("127.0.0.1", flow.sport, "127.0.0.1", 9, None, None, None)
        assert Status.CONFIRMED in flow.status and flow.direction == "local"
        assert abs(before - flow.time_ns) < 10**9
        assert flow.owner.pid == os.getpid()
        # The kernel's own note of who used a socket has a cookie, not an inode.
        assert flow.owner.inode == os.fstat(sender.fileno()).st_ino or flow.owner.match == "bpf" and flow.owner.cookie
        assert flow.owner.process.pid == os.getpid() and flow.owner.reason is None
    assert flow.owner.process.cmdline  # it outlives the Conntrack


def test_flows_are_immutable(inside_tracked):
    with Conntrack(protocol="udp") as conntrack, send():
        flow = next(conntrack)
    for thing, name in (
        (flow, "sport"),
        (flow, "new"),
        (flow.owner, "pid"),
        (flow.original, "src"),
        (flow.owner.process, "pid"),
    ):
        with pytest.raises(AttributeError):
            setattr(thing, name, 1)
    for kind in (Flow, type(flow.owner)):
        with pytest.raises(TypeError):
            kind()


def test_close_wakes_a_blocked_reader(inside_tracked):
    conntrack = Conntrack()
    flows = []
    reader = threading.Thread(target=lambda: flows.extend(conntrack))
    reader.start()
    time.sleep(0.1)
    with Stopwatch() as watch:
        conntrack.close()
        reader.join(SECONDS)
    assert not reader.is_alive() and watch.seconds < 0.5 and flows == []
    conntrack.close()


def test_close_amid_many_flows(tracked, within, flood):
    """The reading thread is let end before anything it works with is freed, though flows wake the one that takes
    them."""
    failures = []

    def take(conntrack):
        try:
            for _ in conntrack:
                pass
        except BaseException as error:
            failures.append(error)

    with within():
        for number in range(10):
            conntrack = Conntrack(protocol="udp", probe=False)
            threads = [
                threading.Thread(target=take, args=(conntrack,)),
                threading.Thread(target=flood, args=(5_000, 30_000, "fresh", f"10.99.{1 + number}.1")),
            ]
            for thread in threads:
                thread.start()
            until(lambda: conntrack.stats().events > 500)
            conntrack.close()
            for thread in threads:
                thread.join(10)
            assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def test_closed(inside_tracked):
    conntrack = Conntrack()
    conntrack.close()
    assert isinstance(conntrack.stats(), Stats)
    for use in (conntrack.fileno, conntrack._next_batch, lambda: conntrack._watch(0)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_fileno_is_readable_when_a_flow_is_there(inside_tracked):
    with Conntrack(protocol="udp") as conntrack:
        poll = select.poll()
        poll.register(conntrack.fileno(), select.POLLIN)
        assert poll.poll(50) == []
        with send():
            assert poll.poll(1000)
            assert len(until(lambda: conntrack.read(timeout=0))) == 1
        assert poll.poll(50) == []


def test_read_gives_up_in_time(inside_tracked):
    with Conntrack() as conntrack:
        with Stopwatch() as watch:
            assert conntrack.read(timeout=0.2) == []
        assert watch.elapsed > 0.15 and watch.seconds < 0.5


def test_events_and_stats(inside_tracked):
    with Conntrack(events=("NEW", "UPDATE", "DESTROY"), protocol="tcp", attribution="off") as conntrack:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()), send():
            server.accept()[0].close()
        kinds = []
        until(
            lambda: (
                kinds.extend((flow.type, flow.proto) for flow in conntrack.read(timeout=0.05))
                or ("UPDATE", "ipv4/tcp") in kinds
            )
        )
        assert kinds[0] == ("NEW", "ipv4/tcp") and {proto for _, proto in kinds} == {"ipv4/tcp"}
        stats = conntrack.stats()
        assert stats.events >= len(kinds) and (stats.lost, stats.overruns, stats.undecoded, stats.named) == (0, 0, 0, 0)
        assert stats.rcvbuf > 1 << 20


@pytest.mark.parametrize(
    "arguments",
    [{"events": ()}, {"events": "OLD"}, {"events": [1]}, {"protocol": "("}, {"rcvbuf": 1}, {"attribution": "magic"}],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        Conntrack(**arguments)


def test_descriptors_are_given_back(inside_tracked):
    def count():
        return len(os.listdir("/proc/self/fd"))

    with Conntrack(track=True):
        pass
    before = count()
    for _ in range(5):
        with Conntrack(track=True):
            pass
    assert count() == before
