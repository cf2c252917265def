"""What is counted of real flows, and by which unit and container."""

import os
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nfct_fast import Conntrack
from nfct_fast.processes import cgroup_filesystem
from support.flows import Worker, collect_count, listening
from support.whole_flows import end_all, whole_flows

ID = "5e" * 32


def parsed(text):
    """{(name, *sorted label values): value} of all samples."""
    return {
        (sample.name, *[sample.labels[key] for key in sorted(sample.labels)]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(found, name):
    return sum(value for key, value in found.items() if key[0] == name)


def send(port, count=1, source=0):
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", source))
            sock.sendto(b"x", ("127.0.0.1", port))


def read(conntrack, count):
    flows = collect_count(conntrack, lambda flow: True, count)
    assert len(flows) == count
    return flows


def test_flows_are_counted_as_they_are_taken(within):
    with within(), listening(filter="dport 4321", metrics=True) as conntrack:
        send(4321, 5)
        send(4322, 3)
        flows = read(conntrack, 5)
        found = parsed(conntrack.metrics())
        assert found["nfct_flows_total", "new"] == 5
        assert total(found, "nfct_owner_found_total") + total(found, "nfct_owner_unknown_total") == 5
        for flow in flows:
            assert found["nfct_owner_found_total", flow.owner.match]
        assert total(found, "nfct_unit_flows_total") == 5
        delays = {key[1:]: value for key, value in found.items() if key[0] == "nfct_delivery_delay_seconds_count"}
        assert sum(delays.values()) == 5
        assert found["nfct_events_total",] >= 5 and found["nfct_events_lost_total",] == 0
        assert found["nfct_flows_unstored_total",] == 0
        assert 0 < found["nfct_conntrack_entries",] < found["nfct_conntrack_entries_limit",]
        assert found["nfct_receive_buffer_bytes",] == conntrack.stats().rcvbuf_all
    assert parsed(conntrack.metrics())["nfct_flows_total", "new"] == 5  # also after close()


def test_all_ways_to_read_count_alike(within):
    with within(), listening(filter="dport 4321", metrics=True) as conntrack:
        send(4321)
        next(conntrack)
        send(4321)
        assert len(next(conntrack.batches(max_wait=0.05))) == 1
        send(4321)
        read(conntrack, 1)
        assert parsed(conntrack.metrics())["nfct_flows_total", "new"] == 3


def test_the_kernels_time_is_where_delays_begin(within):
    """From Linux 6.14 on events have it, if entries have time stamps."""
    with within():
        Path("/proc/sys/net/netfilter/nf_conntrack_timestamp").write_text("1\n")
        with listening(filter="dport 4321", metrics=True) as conntrack:
            send(4321, 4)
            read(conntrack, 4)
            found = parsed(conntrack.metrics())
    recent = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 14)
    assert found["nfct_delivery_delay_seconds_count", "kernel" if recent else "reception"] == 4
    assert found["nfct_delivery_delay_seconds_bucket", "10.0", "kernel" if recent else "reception"] == 4


@pytest.mark.root
def test_bytes_of_whole_flows():
    with whole_flows(metrics=True) as conntrack:
        send(4321, 3)
        flows = end_all(conntrack, lambda flow: flow.dport == 4321, 3)
        found = parsed(conntrack.metrics())
    assert found["nfct_flows_total", "flow"] >= 3
    assert total(found, "nfct_unit_flows_total") == found["nfct_flows_total", "flow"]
    sent = total(found, "nfct_unit_transmit_bytes_total")
    assert sent >= sum(flow.counters.original_bytes for flow in flows) > 0
    assert found["nfct_live_flows",] == 0 and found["nfct_live_flows_forgotten_total",] == 0


def test_a_flow_counts_once_whatever_events_there_are(within):
    with within(), listening(filter="dport 4321", events=("NEW", "UPDATE", "DESTROY"), metrics=True) as conntrack:
        send(4321)
        read(conntrack, 1)
        os.system("conntrack -F >/dev/null 2>&1")
        read(conntrack, 1)
        found = parsed(conntrack.metrics())
    assert (found["nfct_flows_total", "new"], found["nfct_flows_total", "destroy"]) == (1, 1)
    assert total(found, "nfct_unit_flows_total") == 1


@pytest.fixture
def cgroups():
    """A function that makes a cgroup of root's with this name and moves the calling process there."""
    mount = cgroup_filesystem.find_mount(kind=b"cgroup2")
    if mount is None:
        pytest.skip("no cgroup2 mount with systemd's names")
    top = Path(os.fsdecode(mount)) / f"nfmetrics{os.getpid()}.slice"
    try:
        top.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of our own: {error}")

    def enter(name):
        (top / name).mkdir(exist_ok=True)
        (top / name / "cgroup.procs").write_text("0")

    yield enter
    for folder, _, _ in os.walk(top, topdown=False):
        os.rmdir(folder)


def test_units_and_containers(within, cgroups):
    names = ["web.service", f"docker-{ID}.scope", "mail@a\\x2db.service"]

    def work(worker):
        for name in names:
            cgroups(name)
            send(4321, 2)

    with within(), listening(filter="dport 4321", metrics=True) as conntrack:
        with Worker(work) as worker:
            worker.result()
        read(conntrack, 6)
        found = parsed(conntrack.metrics())
    assert found["nfct_unit_flows_total", "web.service"] == 2 == found["nfct_unit_flows_total", "mail@a\\x2db.service"]
    assert found["nfct_container_flows_total", ID, "docker"] == 2
    assert not any(ID in key[1] for key in found if key[0] == "nfct_unit_flows_total")


def test_more_units_than_are_told_apart(within, cgroups):
    """A thousand have a name, and the rest are counted together."""

    def work(worker):
        for number in range(1010):
            cgroups(f"u{number}.service")
            send(4321, source=20_000 + number)  # a port that is used again makes no flow

    with within(), listening(filter="dport 4321", metrics=True) as conntrack:
        with Worker(work) as worker:
            worker.result()
        read(conntrack, 1010)
        found = {
            key[1]: value for key, value in parsed(conntrack.metrics()).items() if key[0] == "nfct_unit_flows_total"
        }
    assert (len(found), found["other"], found["unknown"]) == (1002, 10, 0)
    assert set(found.values()) == {1, 10, 0}


def test_without_the_argument(within):
    with within(), Conntrack(probe=False, track=True) as conntrack, pytest.raises(ValueError, match="metrics=True"):
        conntrack.metrics()
