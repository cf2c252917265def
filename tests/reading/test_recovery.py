"""After an overrun every flow is reported once or counted as lost, and the conntrack table gives back most of them."""

import gc
import subprocess
import threading

import pytest

from support.cli import SECONDS, until
from support.overruns import listening, read_until_quiet


def keys(flows):
    return [(flow.dst, flow.dport) for flow in flows]


@pytest.mark.parametrize("rcvbuf", [4096, 65536, 1 << 20])
def test_all_lost_events_are_made_up_for(tracked, within, flood, rcvbuf):
    with within(), listening(flood, rcvbuf=rcvbuf, rcvbuf_limit=rcvbuf) as conntrack:
        made = flood(40_000, 0)
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
        later = flood(3, 10, address="10.99.9.9")
        assert [flow.dst for flow in read_until_quiet(conntrack)] == ["10.99.9.9"] * later
    assert len(flows) == len(set(keys(flows))) == made  # the table still had them all
    # A flow found in the table whose event then turned up in the queue had not been lost.
    assert stats.lost == 0 and stats.dropped == stats.recovered <= sum(flow.recovered for flow in flows)
    assert rcvbuf == 1 << 20 or stats.overruns >= 1 and stats.recovered > 100


def test_recovered_flows_are_marked_and_the_others_are_in_order(tracked, within, flood):
    with within(), listening(flood) as conntrack:
        flood(20_000, 0)
        flows = read_until_quiet(conntrack)
    heard = [flow.dport for flow in flows if not flow.recovered]
    assert heard == sorted(heard) and 0 < len(heard) < len(flows)
    assert all(flow.type == "NEW" and flow.time_ns > 0 and flow.id is not None for flow in flows)
    # The kernel counts an entry's references in answers to dumps only.
    assert all((flow.use is not None and flow.use >= 1) == flow.recovered for flow in flows)


def test_without_recovery_lost_is_what_was_dropped(tracked, within, flood):
    with within(), listening(flood, recover=False) as conntrack:
        made = flood(20_000, 0)
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
        assert conntrack.lost == stats.lost
    assert not any(flow.recovered for flow in flows)
    assert stats.recovered == 0 and stats.lost == stats.dropped > 0
    assert len(flows) + stats.lost == made


def test_an_iteration_goes_on_after_a_loss(tracked, within, flood):
    with within(), listening(flood, recover=False) as conntrack:
        flood(5_000, 0)
        until(lambda: conntrack.lost)
        later = threading.Timer(0.5, flood, (1, 0, "one", "10.99.9.9"))
        later.start()
        try:
            assert any(flow.dst == "10.99.9.9" for flow in conntrack)
        finally:
            later.join()


def test_what_was_there_before_is_not_recovered(tracked, within, flood):
    flood(5_000, 0, address="10.99.50.1")
    with within(), listening(flood) as conntrack:
        made = flood(20_000, 0)
        flows = read_until_quiet(conntrack)
        assert conntrack.stats().recovered > 0
    assert len(flows) == made and {flow.dst for flow in flows} == {"10.99.1.1"}


def test_only_what_the_filter_wants_is_recovered(tracked, within, flood):
    flood(5_000, 0, address="10.99.50.1")
    with within(), listening(flood, protocol="^ipv4/tcp$") as conntrack:
        flood(5_000, 0, address="10.99.60.1")
        made = flood(10_000, 0, how="tcp")
        flood(5_000, 0, address="10.99.70.1")
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
    assert {flow.proto for flow in flows} == {"ipv4/tcp"} and stats.recovered > 0
    assert len(flows) + stats.lost == made and len(set(keys(flows))) == len(flows)


def test_events_and_overruns_amid_a_sweep(tracked, within, flood):
    """What was reported while the table was read, to forget what has ended, is known all the same afterwards."""
    with within(), listening(flood, rcvbuf=1 << 18, rcvbuf_limit=1 << 18) as conntrack:
        (engine,) = [held for held in gc.get_referents(conntrack) if type(held).__name__ == "Engine"]
        (reader,) = [held for held in gc.get_referents(engine) if type(held).__name__ == "Reader"]
        flows, made = [], 0
        for address in ("10.99.1.1", "10.99.2.1"):
            sender = threading.Thread(target=flood, args=(15_000, 5_000, "one", address))
            sender.start()
            while sender.is_alive():
                reader.sources[0].request_sweep()
                flows += conntrack.read(timeout=0.05)
            sender.join()
            made += 15_000 + flood(20_000, 0, address=address.replace(".1", ".100", 1))
        flows += read_until_quiet(conntrack)
        stats = conntrack.stats()
    assert stats.overruns and stats.recovered > 100
    assert len(set(keys(flows))) == len(flows) == made and stats.lost == 0


def test_overruns_amid_a_recovery(tracked, within, flood):
    """Many overruns, each while the table is read because of the one before: every flow still only once."""
    with within(), listening(flood, rcvbuf=16384, rcvbuf_limit=16384) as conntrack:
        flows, stop = [], threading.Event()

        def take():
            while not stop.is_set():
                flows.extend(conntrack.read(timeout=0.3))

        taker = threading.Thread(target=take)
        taker.start()
        made = sum(flood(4_000, rate, address=f"10.99.{10 + i}.1") for i, rate in enumerate([0, 30_000] * 5))
        stop.set()
        taker.join(SECONDS)
        flows += read_until_quiet(conntrack)
        stats = conntrack.stats()
    assert stats.overruns > 3 and stats.recovered > 0
    assert len(set(keys(flows))) == len(flows) and len(flows) + stats.lost == made


def test_stopped_amid_a_recovery(tracked, within, flood):
    """A recovered flow whose event is read afterwards with the rest of the queue is still reported only once."""
    seen = 0
    for number in range(8):
        with within(), listening(flood, rcvbuf=65536, rcvbuf_limit=65536) as conntrack:
            sender = threading.Thread(target=flood, args=(20_000, 0, "one", f"10.99.{10 + number}.1"))
            sender.start()
            until(lambda: conntrack.stats().recovered)
            conntrack.stop()
            flows = list(conntrack)
            sender.join()
            seen += any(flow.recovered for flow in flows)
        assert len(set(keys(flows))) == len(flows)
        forget_all(tracked)
    assert seen == 8


def forget_all(netns):
    subprocess.run(["nsenter", f"--net=/run/netns/{netns}", "conntrack", "-F"], check=True, capture_output=True)


def test_ended_flows_are_counted_as_lost(tracked, within, flood):
    """NEW and DESTROY of each flow: every event is reported, its flow recovered, or the loss counted."""
    with within(), listening(flood, events=("NEW", "DESTROY")) as conntrack:
        made = flood(10_000, 0)
        forget_all(tracked)
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
    new = [flow for flow in flows if flow.type == "NEW"]
    assert len(set(keys(new))) == len(new) <= made
    assert stats.lost > 0 and len(flows) + stats.lost == 2 * made + 1


def test_updates_alone_are_never_recovered(tracked, within, flood):
    with within(), listening(flood, events=("DESTROY",)) as conntrack:
        made = flood(10_000, 0)
        forget_all(tracked)
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
    assert {flow.type for flow in flows} <= {"DESTROY"} and stats.recovered == 0
    assert len(flows) + stats.lost == made


def test_recovered_flows_have_owners(tracked, within, flood):
    with within(), listening(flood, attribution="auto") as conntrack:
        made = flood(10_000, 0, how="one")
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
    recovered = [flow for flow in flows if flow.recovered]
    assert len(flows) == made and recovered
    if {flow.owner.match for flow in flows} == {"bpf"}:
        assert {flow.owner.process.comm for flow in recovered} == {"flood"} and stats.named == made + 1


def test_the_buffer_grows_to_its_limit_and_no_further(tracked, within, flood):
    with within(), listening(flood, rcvbuf=65536, rcvbuf_limit=1 << 20) as conntrack:
        start = conntrack.stats().rcvbuf
        made = flood(30_000, 0)
        flows = read_until_quiet(conntrack)
        stats = conntrack.stats()
    assert start == 2 * 65536 and start < stats.rcvbuf <= 2 << 20  # the kernel counts twice what was asked for
    assert len(flows) + stats.lost == made


def test_a_buffer_at_its_limit_stays(tracked, within, flood):
    with within(), listening(flood) as conntrack:
        start = conntrack.stats().rcvbuf
        flood(10_000, 0)
        until(lambda: conntrack.stats().overruns)
        assert conntrack.stats().rcvbuf == start
