"""Flows, bytes and rows of the live table, of real flows in a namespace, without a terminal."""

import os
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

from nfct_fast import Conntrack
from nfct_fast.live_table.followed_flows import FollowedFlows
from nfct_fast.live_table.parties import GROUPINGS
from nfct_fast.live_table.table_reading import TableReading
from support.cli import inside, until

IP_UDP = 28  # bytes of the headers of a datagram
COUNTER = "table inet counted { chain out { type filter hook output priority 300; counter; }; }"


class Table:
    """A live table that the test drives."""

    def __init__(self, conntrack, grouping="process", capacity=1 << 10, keep=3600, gone_after=60):
        self.conntrack, self.keep = conntrack, keep
        self.flows = FollowedFlows(grouping, capacity, gone_after)
        self.reading = TableReading(self.flows, conntrack._tables)
        self.intervals = 0

    def take(self):
        while records := self.conntrack._next_batch(0):
            self.flows.take(records)
        assert records is not None

    def interval(self):
        """Take what there is, read the tables, and end an interval that counts as one second."""
        self.take()
        self.reading.begin()
        until(lambda: self.reading.advance(0.1), what="the end of the reading")
        self.intervals += 1
        return self.flows.end_interval(1.0, time.time_ns(), int(self.keep * 1e9))

    def until(self, condition, what):
        """End intervals until condition(totals)."""

        def holds():
            totals = self.interval()
            return condition(totals) and totals

        return until(holds, what=what)

    def row(self, **wanted):
        [row] = [row for row in self.flows.rows() if all(getattr(row, name) == value for name, value in wanted.items())]
        return row


@pytest.fixture
def counting(tracked):
    subprocess.run(inside(tracked, ["sysctl", "-q", "net.netfilter.nf_conntrack_acct=1"]), check=True)
    subprocess.run(inside(tracked, ["nft", COUNTER]), check=True)
    return tracked


@pytest.fixture
def opened(counting, within):
    @contextmanager
    def make(grouping="process", capacity=1 << 10, keep=3600, gone_after=60, **options):
        with within(), Conntrack(events="NEW", flows=True, probe=False, _tables=True, **options) as conntrack:
            yield Table(conntrack, grouping, capacity, keep, gone_after)

    return make


def udp(port, payload=b"x", times=1, address="127.0.0.1"):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((address, port))
    for _ in range(times):
        try:
            sock.send(payload)
        except ConnectionRefusedError:
            sock.send(payload)
    return sock


def serve(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port))
    return sock


def counted(netns):
    """Bytes that left all sockets of the namespace, as nftables counted them."""
    text = subprocess.run(
        inside(netns, ["nft", "list", "table", "inet", "counted"]), check=True, capture_output=True
    ).stdout
    return int(text.split(b" bytes ")[1].split()[0])


def test_bytes_are_those_that_nftables_counts(opened, counting):
    with opened() as table:
        before = counted(counting)
        server = socket.create_server(("127.0.0.1", 7001))
        client = socket.create_connection(("127.0.0.1", 7001))
        accepted, _ = server.accept()
        total = 0
        for _ in range(5):
            client.sendall(b"x" * 100_000)
            total += 100_000
            while total and len(got := accepted.recv(1 << 20)) < total:
                total -= len(got)
            total = 0
            accepted.sendall(b"y" * 1000)
            assert client.recv(1000)
            table.interval()
        with serve(7002), udp(7002, b"z" * 1000, times=20):
            table.until(lambda totals: totals.live >= 2, "both flows")
        client.close()
        accepted.close()
        subprocess.run(inside(counting, ["conntrack", "-D", "-p", "udp"]), check=True, capture_output=True)
        totals = table.until(lambda totals: totals.closed == 1, "the end of the UDP flow")
        sent = counted(counting) - before
        totals = table.until(lambda totals: totals.total_in + totals.total_out == sent, f"{sent} bytes, had {totals}")
        assert sent > 520_000
        row = table.row(live=1)
        assert (row.total_in, row.total_out) == (totals.total_in, totals.total_out)
        assert row.total_out >= 500_000 + 20 * (1000 + IP_UDP) > 5000 < row.total_in
        assert row.party.pid == os.getpid() and str(os.getpid()) not in row.name


def test_rates_are_of_the_last_interval_and_never_negative(opened):
    with opened() as table, serve(7003), udp(7003, b"x" * 72) as sock:
        totals = table.until(lambda totals: totals.live == 1, "the flow")
        assert totals.bytes_out == 100 and totals.bytes_in == 0
        assert table.interval().bytes_out == 0
        sock.send(b"x" * 172)
        totals = table.interval()
        assert (totals.bytes_out, totals.total_out, totals.began) == (200, 300, 0)


def test_bytes_from_before_the_start_do_not_count(opened, within):
    with within():
        server, sock = serve(7004), udp(7004, b"x" * 1000)
    with opened() as table, server, sock:
        totals = table.until(lambda totals: totals.live == 1, "the flow that was there")
        assert totals.total_out == 0 and totals.began == 0
        sock.send(b"x" * 72)
        assert table.interval().total_out == 100
        assert table.row(live=1).party.pid == os.getpid()


def test_a_flow_whose_end_is_not_told_ends(opened, counting, within):
    # As of flows that began while nobody on this host listened, with nf_conntrack_events=2.
    subprocess.run(inside(counting, ["sysctl", "-q", "net.netfilter.nf_conntrack_events=0"]), check=True)
    with within():
        server, sock = serve(7005), udp(7005)
    subprocess.run(inside(counting, ["sysctl", "-q", "net.netfilter.nf_conntrack_events=2"]), check=True)
    with opened(gone_after=0) as table, server, sock:
        table.until(lambda totals: totals.live == 1, "the flow that was there")
        subprocess.run(inside(counting, ["conntrack", "-D", "-p", "udp"]), check=True, capture_output=True)
        assert table.interval().live == 1
        totals = table.interval()
        assert (totals.live, totals.closed) == (0, 1)
        # The same tuple once more is another flow, all of whose bytes count.
        sock.send(b"x" * 72)
        totals = table.until(lambda totals: totals.live == 1, "the same tuple again")
        assert totals.total_out == 100 and totals.closed == 1


def test_what_has_ended_is_kept_for_a_while(opened, counting):
    with opened(keep=3600) as table, serve(7006), udp(7006):
        table.until(lambda totals: totals.live == 1, "the flow")
        subprocess.run(inside(counting, ["conntrack", "-D", "-p", "udp"]), check=True, capture_output=True)
        totals = table.until(lambda totals: totals.live == 0, "its end")
        assert totals.closed == 1 and table.row(ended=True).live == 0
        table.keep = 0
        assert table.interval().closed == 0
        table.interval()
        assert table.flows.rows() == []


def test_every_grouping_has_the_same_sums(opened):
    with opened() as table, serve(7007), serve(7008), udp(7007, b"x" * 72), udp(7008, b"x" * 172), udp(9, b"x" * 72):
        totals = table.until(lambda totals: totals.live == 3, "three flows")
        for grouping in GROUPINGS:
            table.flows.regroup(grouping)
            rows = table.flows.rows()
            assert sum(row.live for row in rows) == 3, grouping
            assert sum(row.total_out for row in rows) == totals.total_out == 400
            for row in rows:
                assert sum(flow.total_out for flow in table.flows.flows_of(row.key)) == row.total_out
        names = {}
        for grouping in GROUPINGS:
            table.flows.regroup(grouping)
            table.interval()
            names[grouping] = {row.name for row in table.flows.rows()}
        assert names["destination"] == {"127.0.0.1"}
        assert names["port"] == {"udp/7007", "udp/7008", "udp/9"}
        assert names["user"] == {"root"}
        assert all(name.startswith("udp 127.0.0.1/") for name in names["flow"]) and len(names["flow"]) == 3
        with pytest.raises(ValueError, match="must be one of"):
            table.flows.regroup("colour")


def test_there_are_no_more_flows_than_allowed(opened):
    with opened(capacity=16) as table, serve(7009):
        socks = [udp(7009) for _ in range(40)]
        totals = table.until(lambda totals: totals.unfollowed, "flows beyond the limit")
        table.take()
        totals = table.interval()
        assert (totals.live, totals.unfollowed, totals.entries) == (16, 24, 40)
        assert len(socks) == 40


def test_flows_come_and_go_by_the_thousand(opened, counting):
    with opened("port", capacity=1 << 14, keep=0) as table, serve(7010):
        began = 0
        for _ in range(5):
            for sock in [udp(7010) for _ in range(500)]:
                sock.close()
            subprocess.run(inside(counting, ["conntrack", "-F"]), check=True, capture_output=True)
            began += 500
            totals = table.until(lambda totals: totals.total_out == began * (1 + IP_UDP), f"the end of {began}")
            assert totals.live == 0 == totals.unfollowed
        assert table.interval().closed == 0


def test_flows_without_a_process_have_a_row_for_each_reason(opened):
    with opened(attribution="off") as table, serve(7011), udp(7011):
        table.until(lambda totals: totals.live == 1, "the flow")
        for grouping in ("process", "program", "unit", "container"):
            table.flows.regroup(grouping)
            [row] = table.flows.rows()
            assert row.name == "? off" and row.party.pid is None


def test_uncounted_bytes_are_noticed(tracked, within):
    with within(), Conntrack(events="NEW", flows=True, probe=False, _tables=True) as conntrack:
        table = Table(conntrack)
        with serve(7012), udp(7012):
            totals = table.until(lambda totals: totals.live == 1, "the flow")
            assert totals.uncounted == totals.entries == 1
            assert totals.total_out == 0 and totals.began <= 1
