"""A filter of the class: of real flows, those it keeps are delivered, and the others are counted where they cost."""

import os
import socket

import pytest

from nfct_fast import Conntrack
from support.cli import until
from support.flows import Worker, listening
from support.netns import made, use_conntrack
from support.overruns import listening as overrun_listening
from support.overruns import read_until_quiet
from support.users import NOBODY, as_user

LAST = 7999


def send_and_keep(ports):
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
    for port, sender in zip(ports, senders):
        sender.connect(("127.0.0.1", port))
        sender.send(b"x")
    return senders


def send(ports):
    for sender in send_and_keep(ports):
        sender.close()


def send_as_nobody(ports):
    def work(worker):
        as_user()
        send(ports)
        return os.getpid()

    with Worker(work) as worker:
        return worker.result()


def taken(conntrack):
    """The flows until that to LAST, which the filter has to keep."""
    send([LAST])
    flows = []
    until(lambda: flows.extend(conntrack.read(timeout=0.1)) or any(flow.dport == LAST for flow in flows))
    return [flow for flow in flows if flow.dport != LAST]


def test_what_the_kernel_decides_is_never_received(within):
    with within(), listening(filter=f"dport 7001-7003,{LAST} and not dport 7002") as conntrack:
        send(range(7000, 7010))
        flows = taken(conntrack)
        stats = conntrack.stats()
    assert [flow.dport for flow in flows] == [7001, 7003]
    assert (stats.events, stats.filtered, stats.named) == (3, 0, 3)


@pytest.mark.parametrize(
    ("mode", "text", "ports"),
    [
        ("auto", f"user nobody or dport {LAST}", [7003, 7004]),
        ("diag", f"not uid {NOBODY}", [7001, 7002]),
        ("auto", f"uid {NOBODY} and dport 7001,7003 or dport {LAST}", [7003]),
        ("diag", f"exe python* and dir local and ip and not (dport 7002 or uid {NOBODY}) or dport {LAST}", [7001]),
        ("auto", f"peer reason closed and dport > 7002 and dport < 7004 or dport {LAST}", [7003]),
    ],
)
def test_what_owners_decide(within, mode, text, ports):
    with within(), listening(mode, filter=text) as conntrack:
        own = send_and_keep([7001, 7002])

        def work(worker):
            as_user()
            kept = send_and_keep([7003, 7004])
            worker.say("sent")
            worker.hear()
            del kept

        with Worker(work) as worker:
            assert worker.hear() == "sent"
            flows = taken(conntrack)
        for sender in own:
            sender.close()
        stats = conntrack.stats()
    assert [flow.dport for flow in flows] == ports
    assert stats.events - stats.filtered == len(ports) + 1


def test_the_pid_of_one_process(within):
    with within(), listening(filter=f"pid {os.getpid()}") as conntrack:
        send([7001])
        send_as_nobody([7002, 7003])
        assert [flow.dport for flow in taken(conntrack)] == [7001]


def test_all_events_of_a_flow_are_decided_alike(tracked, within):
    with (
        within(),
        Conntrack(events=("NEW", "UPDATE", "DESTROY"), filter="dport 7001 and uid 0 or dport 7999") as conntrack,
    ):
        for port in (7001, 7002):
            with socket.create_server(("127.0.0.1", port)) as server:
                with socket.create_connection(("127.0.0.1", port)):
                    server.accept()[0].close()
        flows = taken(conntrack)
    assert {flow.dport for flow in flows} == {7001} and {flow.type for flow in flows} >= {"NEW", "UPDATE"}


def test_of_all_namespaces_one(netns):
    with made() as other:
        for name in (netns, other):
            use_conntrack(name)
        with Conntrack(netns="all", filter=f"netns {netns} and dport 7001-7999", probe=False) as conntrack:
            from nfct_fast.kernel.netns import resolve

            flows = []
            for name, ports in ((other, [7001, 7002]), (netns, [7003, LAST])):
                [space] = resolve(name)
                with space, space.entered():
                    send(ports)
            until(lambda: flows.extend(conntrack.read(timeout=0.1)) or any(flow.dport == LAST for flow in flows))
            assert conntrack.stats().filtered >= 2
    assert [flow.dport for flow in flows] == [7003, LAST]


# After an overrun, what the filter keeps is recovered, and nothing else; `lost` counts what was not found.


def ports(flows):
    return sorted(flow.dport for flow in flows)


@pytest.mark.parametrize(
    "text",
    ["dport 1-3000,9000-9100", "dport 1-3000 or dir out and dport > 9000", "pid 1"],
)
def test_recovered_flows_are_filtered_too(tracked, within, flood, text):
    with within(), overrun_listening(flood, filter=f"dst 10.99.99.99 or {text}") as conntrack:
        made_flows = flood(20_000, 0)
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
        everything = 20_000 if "dport" not in text else None
    assert made_flows == 20_000
    kept = [flow for flow in flows if flow.dst == "10.99.1.1"]
    assert len(ports(kept)) == len(set(ports(kept)))
    if everything:
        assert kept == [] and stats.filtered == everything
    else:
        assert kept and all(1 <= flow.dport <= 3000 or 9000 <= flow.dport <= 9100 for flow in kept)
    # The table still had them all.
    assert stats.lost == 0 and stats.unallocated == 0 and stats.recovered == stats.dropped


def test_losses_are_reported_whatever_the_filter_is(tracked, within, flood):
    with within(), overrun_listening(flood, filter="pid 1 or dst 10.99.99.99", recover=False) as conntrack:
        flood(20_000, 0)
        assert read_until_quiet(conntrack) == []
        stats = conntrack.stats()
        assert conntrack.lost == stats.lost == stats.dropped > 0
    assert stats.filtered + stats.lost == 20_000
