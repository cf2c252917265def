"""One record for each flow, at its end: who began it, who used it, and what it carried."""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time

import pytest

from nfct_fast.conntrack import Conntrack
from support.cli import Program, inside, run, until
from support.containers import hosts, within
from support.flows import DGRAM, INET, INET6, STREAM, Worker, nft
from support.netns import inside as entered
from support.netns import made as made_netns
from support.overruns import read_until_quiet
from support.socket_notes import unusable
from support.users import as_user
from support.whole_flows import PORT, count_entries, end_all, set_sysctl, whole_flows

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
FIRST, SECOND = 65534, 4321


def is_of_test(flow):
    return flow.dport == PORT


def used_by(uid, source=6161, family=INET, count=1):
    """A process of that user sends from that port, once to each of `count` ports, and is gone: its pid."""

    def work(worker):
        if uid:
            as_user(uid)
        with socket.socket(family, DGRAM) as sock:
            sock.bind(("127.0.0.1" if family == INET else "::1", source))
            for i in range(count):
                sock.sendto(b"x", (sock.getsockname()[0], PORT + i))
        worker.say("sent")

    with Worker(work) as worker:
        assert worker.hear() == "sent"
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    return worker.pid


@pytest.mark.parametrize("timestamp", [True, False])
@pytest.mark.parametrize("family", [INET, INET6])
def test_a_process_long_gone(family, timestamp):
    with whole_flows(timestamp=timestamp) as conntrack:
        pid = used_by(FIRST, family=family)
        until(lambda: conntrack.stats().live_flows >= 1)
        assert conntrack.read(timeout=0) == []
        time.sleep(0.2)
        [flow] = end_all(conntrack, is_of_test, 1)
        assert conntrack.stats().named >= 1 and conntrack.stats().live_flows == 0
    assert (flow.type, flow.owner.pid, flow.owner.uid, flow.owner.reason) == ("FLOW", pid, FIRST, None)
    assert [process.pid for process in flow.owner.processes] == [pid] and flow.owner.process.cmdline
    assert flow.counters.original_packets == 1 and flow.duration_ns > 2 * 10**8
    assert (flow.start_ns is not None) == timestamp and not flow.forgotten and not flow.recovered


@pytest.mark.parametrize("timestamp", [True, False])
def test_who_began_it_comes_first_and_all_who_used_it_follow(timestamp):
    with whole_flows(timestamp=timestamp) as conntrack:
        pids = [used_by(FIRST)]
        until(lambda: conntrack.stats().live_flows == 1)  # read before anybody else uses the tuple
        pids += [used_by(uid) for uid in (SECOND, 0)]
        [flow] = end_all(conntrack, is_of_test, 1)
    assert [process.pid for process in flow.owner.processes] == [pids[0], pids[2], pids[1]]
    assert flow.counters.original_packets == 3


@pytest.mark.parametrize("timestamp", [True, False])
def test_of_users_before_its_beginning_was_read_nobody_began_it(tracked, within, timestamp):
    with within():
        count_entries(timestamp)
    with Program(tracked, "--flows", "--json", "-p", "udp") as program, within():
        program.stop()
        pids = [used_by(uid) for uid in (FIRST, SECOND, 0)]
        os.kill(program.pid, signal.SIGCONT)
        time.sleep(0.2)
        subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
        program.await_lines(1)
        program.end()
    [flow] = [json.loads(line) for line in program.lines]
    assert (flow["owner"]["pid"], flow["owner"]["reason"]) == (None, "ambiguous")
    assert [user["pid"] for user in flow["owner"]["users"]] == pids[::-1]


def test_a_tuple_used_again_is_another_flow():
    with whole_flows(timestamp=False) as conntrack:
        pids, flows = [], []
        for uid in (FIRST, SECOND):
            pids.append(used_by(uid))
            flows += end_all(conntrack, is_of_test, 1)
            time.sleep(1.2)  # until the reader knows that all the events of before have come
    assert [flow.owner.pid for flow in flows] == pids
    assert [len(flow.owner.processes) for flow in flows] == [1, 1]


def test_both_ends_and_many_at_once():
    """Of refused connections the beginning and the end come together."""
    with whole_flows(events="NEW") as conntrack:
        ports = set()
        for _ in range(300):
            with socket.socket(INET, STREAM) as client, contextlib.suppress(ConnectionRefusedError):
                client.bind(("127.0.0.1", 0))
                ports.add(client.getsockname()[1])
                client.connect(("127.0.0.1", PORT))
        flows = []
        until(lambda: flows.extend(filter(is_of_test, conntrack.read(timeout=0.1))) or len(flows) >= 2 * len(ports))
    new, ended = ([flow for flow in flows if flow.type == kind] for kind in ("NEW", "FLOW"))
    assert {flow.sport for flow in new} == {flow.sport for flow in ended} == ports and len(new) == len(ended) == 300
    for flow in flows:
        assert flow.owner.pid == os.getpid() and flow.peer.reason == "closed", (flow, flow.owner, flow.peer)
    assert {flow.outcome for flow in ended} == {"refused"} and {flow.outcome for flow in new} == {None}


def test_flows_from_before_the_start():
    with entered(), contextlib.ExitStack() as stack:
        count_entries()
        set_sysctl("nf_conntrack_events", 1)  # with 2 the kernel tells no end of what began before anybody listened
        nft("table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }")
        server = stack.enter_context(socket.create_server(("127.0.0.1", PORT)))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", PORT)))
        stack.enter_context(server.accept()[0])
        port = client.getsockname()[1]
        used_by(FIRST)
        with Conntrack(flows=True, probe=False) as conntrack:
            until(lambda: conntrack.stats().live_flows == 2)
            flows = end_all(conntrack, is_of_test, 2)
    old, other = sorted(flows, key=lambda flow: flow.proto)
    assert old.owner.pid == old.peer.pid == os.getpid() and old.recovered and not old.forgotten
    assert old.sport == port and old.duration_ns > 0
    assert other.owner.pid is None and other.owner.reason in ("closed", "ambiguous")


def test_a_user_with_many_flows_forgets_their_own():
    with whole_flows(flows=1000, timestamp=False) as conntrack:
        few = used_by(SECOND, 5000, count=20)
        until(lambda: conntrack.stats().live_flows == 20)
        many = used_by(FIRST, 5001, count=6000)
        until(lambda: conntrack.stats().events >= 6020)
        stats = conntrack.stats()
        flows = end_all(conntrack, lambda flow: flow.dport >= PORT, 6020)
    assert stats.live_flows == 1000 and stats.forgotten == conntrack.forgotten == 5020
    for flow in flows:
        assert flow.owner.pid in ((few,) if flow.sport == 5000 else (many, None)), (flow, flow.owner)
    assert [flow.forgotten for flow in flows if flow.sport == 5000] == [False] * 20
    assert sum(flow.forgotten for flow in flows) == 5020


def test_losses_name_nobody_else(flood, within):
    """Ends and beginnings are lost; users change places on the same tuples meanwhile."""
    with within():
        count_entries(timestamp=False)
        with Conntrack(track=True, probe=False, flows=True, rcvbuf=16384, rcvbuf_limit=16384) as conntrack:
            first = used_by(FIRST, 5000, count=300)
            until(lambda: conntrack.stats().live_flows >= 300)
            flood(5_000, 0)
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
            second = used_by(SECOND, 5000, count=300)
            flood(5_000, 0, address="10.99.2.1")
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
            flows = read_until_quiet(conntrack)
            assert conntrack.stats().overruns > 0
    ours = [flow for flow in flows if flow.sport == 5000]
    # Of each port the first record is of the first user's flow, or that one's end was lost.
    assert {flow.owner.pid for flow in ours} <= {first, second, None}
    seen = {}
    for flow in ours:
        seen.setdefault(flow.dport, []).append(flow.owner.pid)
    assert not any(pids == [second, first] or pids.count(first) > 1 for pids in seen.values())


ROUTES = """
table inet nat {
    chain in { type nat hook prerouting priority dstnat;
        meta nfproto ipv4 tcp dport 8080 dnat ip to 10.88.2.2:5102; udp dport 8080 dnat ip to 10.88.2.2:5102;
        meta nfproto ipv6 tcp dport 8081 dnat ip6 to [fd88:2::2]:5102; }
    chain post { type nat hook postrouting priority srcnat; oifname v2 masquerade; }
    chain seen { type filter hook forward priority 0;
        tcp dport 5101 counter comment "out 5101"; tcp sport 5101 counter comment "back 5101";
        tcp dport 5102 counter comment "out 5102"; tcp sport 5102 counter comment "back 5102"; }
}
"""


def counters():
    shown = json.loads(subprocess.run(["nft", "-j", "list", "ruleset"], check=True, capture_output=True).stdout)
    rules = [each["rule"] for each in shown["nftables"] if "rule" in each and "comment" in each["rule"]]
    return {rule["comment"]: next(e["counter"] for e in rule["expr"] if "counter" in e) for rule in rules}


@pytest.mark.parametrize("family, direct, natted", [
    (INET, ("10.88.2.2", 5101), ("10.88.1.1", 8080)),
    (INET6, ("fd88:2::2", 5101), ("fd88:1::1", 8081)),
], ids=["ipv4", "ipv6"])  # fmt: skip
def test_bytes_of_each_process_through_nat(family, direct, natted):
    """Two programs in a container, through source and destination NAT, against the counters of nftables."""

    def ask(where, size, times):
        def work(worker):
            for _ in range(times):
                with socket.create_connection(where, timeout=20) as client:
                    client.sendall(b"x" * size)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        pass
            worker.say("done")

        return work

    with hosts(2) as (_, inner, outer):
        nft(ROUTES)
        count_entries()
        server = within(outer, lambda worker: serve_all(worker, family))
        with Conntrack(track=True, probe=False, flows=True) as conntrack, Worker(server) as serving:
            serving.hear()
            pids = {}
            for where, size, times in ((direct, 100_000, 3), (natted, 30_000, 5)):
                with Worker(within(inner, ask(where, size, times))) as asking:
                    assert asking.hear() == "done"
                    pids[asking.pid] = where[1]
            counted = counters()
            flows = end_all(conntrack, lambda flow: flow.dport in (5101, 8080, 8081), 8)
    for pid, port in pids.items():
        own = [flow for flow in flows if flow.owner.pid == pid]
        there = 5101 if port == 5101 else 5102
        assert len(own) == (3 if port == 5101 else 5) and {flow.dport for flow in own} == {port}
        for flow in own:
            assert (flow.direction, flow.outcome, flow.peer.pid) == ("forward", "answered", serving.pid)
            assert flow.reply.sport == there and flow.reply.dst in ("10.88.2.1", "fd88:2::1")
        for name, way in (("out", "original"), ("back", "reply")):
            kept = sum(getattr(flow.counters, f"{way}_bytes") for flow in own)
            nftables = counted[f"{name} {there}"]["bytes"]
            assert nftables > 90_000 and abs(kept - nftables) <= nftables / 100, (name, port, kept, nftables)


def serve_all(worker, family):
    with selectors.DefaultSelector() as selector:
        for port in (5101, 5102):
            selector.register(socket.create_server(("", port), family=family), selectors.EVENT_READ, None)
        worker.say("ready")
        while True:
            for key, _ in selector.select():
                with key.fileobj.accept()[0] as connection:
                    while data := connection.recv(65536):
                        connection.sendall(data)


def test_a_namespace_that_ends():
    with entered(), Conntrack(track=True, probe=False, flows=True, netns="all", protocol="udp") as conntrack:
        used_by(FIRST)
        with made_netns() as name:
            until(lambda: conntrack.stats().namespaces_added >= 1)

            def send(worker):
                with socket.socket(INET, DGRAM) as sock:
                    for port in range(50):
                        sock.sendto(b"x", ("127.0.0.1", 9000 + port))

            with Worker(within(name, send)) as sender:
                assert sender.result() is None
            until(lambda: conntrack.stats().live_flows >= 51)
        until(lambda: conntrack.stats().unended >= 50, seconds=40)
        here = os.stat("/proc/thread-self/ns/net").st_ino  # whatever else runs on this host is monitored, too
        [flow] = end_all(conntrack, lambda flow: is_of_test(flow) and flow.netns == here, 1)
    assert flow.owner.uid == FIRST


def test_destroy_is_not_asked_for_besides(netns):
    for events in ("destroy", "all"):
        ended = run(netns, "--flows", "-e", events)
        assert ended.returncode == 2 and ended.stderr.count(b"\n") == 1 and b"DESTROY" in ended.stderr
    with pytest.raises(ValueError, match="flows"):
        Conntrack(flows=-1)


def test_the_program_and_what_the_kernel_does_not_count(tracked):
    sending = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'xyz', ('127.0.0.1', %d))"
    with Program(tracked, "--flows", "--json", "-p", "udp") as program:
        said = until(lambda: len(program.complaints) >= 2 and program.complaints)
        for name, line in zip(("acct", "timestamp"), said):
            assert f"sysctl net.netfilter.nf_conntrack_{name}=1" in line
        for port in (PORT, PORT + 1):
            subprocess.run(inside(tracked, [sys.executable, "-c", sending % port]), check=True)
        time.sleep(0.2)
        subprocess.run(inside(tracked, ["conntrack", "-D", "-p", "udp", "--dport", str(PORT)]), capture_output=True)
        program.await_lines(1)
        program.end()
    [record] = [json.loads(line) for line in program.lines]
    assert (record["type"], record["outcome"], record["original"]["dport"]) == ("FLOW", "unanswered", PORT)
    assert record["owner"]["cmdline"][-1] == sending % PORT and "forgotten" not in record
    assert 10**8 < record["duration_ns"] < 10**10 and "original_bytes" not in record
    assert program.complaints[2:] == ["nfct-fast: 1 flows had not ended and have no record"]


def test_fields_of_a_template(tracked, within):
    with within():
        count_entries()
    form = "{ev.type} {ev.outcome} {ev.duration} {ev.original_packets} {ev.original_bytes} {ev.reply_bytes} {info.pid}"
    with Program(tracked, "--flows", "-p", "udp", "-f", form + " {ev.forgotten} {ev.recovered}") as program:
        with within(), socket.socket(INET, DGRAM) as sock:
            sock.sendto(b"xyz", ("127.0.0.1", PORT))
            time.sleep(0.2)
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
        program.await_lines(1)
        program.end()
    assert len(program.lines) == 1, program.lines
    words = program.lines[0].split()
    assert words[:2] + words[3:] == ["FLOW", "unanswered", "1", "31", "0", str(os.getpid()), "-", "-"]
    assert 0.15 < float(words[2]) < 5
