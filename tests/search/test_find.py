"""What is found in a store by its indexes is what a filter keeps of everything in it."""

import os
import tempfile
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast import Conntrack, FilterError, Store
from nfct_fast.search.time_error import TimeError
from support import filters
from support.described_flows import record
from support.stored_flows import BASE, CONDITIONS, FLOW, HOUR, own_words, stored_flows
from support.stores import make_store


def told(flows):
    return sorted([(flow.time_ns, flow.type, flow.to_json()) for flow in flows])


@settings(max_examples=8, deadline=None)
@given(
    st.lists(stored_flows(), min_size=20, max_size=60),
    st.lists(filters.filters(CONDITIONS), min_size=12, max_size=12),
    st.tuples(st.integers(0, 3 * HOUR), st.integers(0, 3 * HOUR)).map(sorted),
)
def test_it_finds_what_a_filter_keeps(flows, some, times):
    flows.sort(key=lambda flow: flow["time"])
    since, until = (BASE + time for time in times)
    fd = os.memfd_create("recording")
    os.write(fd, record(flows))
    with tempfile.TemporaryDirectory() as directory, Store(directory) as store:
        make_store(directory, flows)
        for one in some:
            try:
                conntrack = Conntrack(replay=fd, filter=one.text)
            except ValueError as error:
                assert "no flow can match" in str(error)
                continue
            with conntrack:
                wanted = told([flow for flow in conntrack if since <= flow.time_ns < until])
            found = list(store.find(one.text, since=since, until=until, all_records=True))
            assert told(found) == wanted, one.text
            assert [flow.time_ns for flow in found] == sorted([flow.time_ns for flow in found])
            newest = list(store.find(one.text, since=since, until=until, all_records=True, newest_first=True))
            assert newest == found[::-1] or told(newest) == wanted
        assert store.complaints == []
    os.close(fd)


def times(flows):
    return [(flow.type, (flow.time_ns - BASE) // 10**9) for flow in flows]


def at(seconds, kind, **changes):
    began = {"began": BASE + changes.pop("began") * 10**9} if "began" in changes else {}
    return FLOW | changes | began | {"time": BASE + seconds * 10**9, "type": kind}


OTHER = {"orig": ("10.0.0.5", 40001, "203.0.113.7", 443)}


@pytest.fixture
def store(tmp_path):
    def make(*flows):
        make_store(tmp_path, list(flows))
        return Store(str(tmp_path))

    return make


def test_a_flow_is_shown_once_by_the_record_that_tells_most(store):
    found = store(at(1, "NEW"), at(2, "UPDATE"), at(3, "NEW", **OTHER), at(4, "UPDATE", **OTHER), at(4000, "DESTROY"))
    assert times(found.find()) == [("NEW", 3), ("DESTROY", 4000)]
    assert times(found.find(newest_first=True)) == [("DESTROY", 4000), ("UPDATE", 4)]
    assert len(list(found.find(all_records=True))) == 5
    assert times(found.find(until=BASE + 100 * 10**9)) == [("NEW", 1), ("NEW", 3)]


def test_what_uses_the_same_ports_later_is_another_flow(store):
    found = store(at(1, "NEW"), at(2, "DESTROY"), at(3, "NEW"), at(4, "DESTROY"), at(5, "NEW"))
    assert times(found.find()) == [("DESTROY", 2), ("DESTROY", 4), ("NEW", 5)]
    assert times(found.find(newest_first=True)) == [("NEW", 5), ("DESTROY", 4), ("DESTROY", 2)]


def test_limit(store):
    found = store(*[at(n * 1000, "FLOW", began=n * 1000 - 5) for n in range(1, 9)])
    assert times(found.find(limit=2)) == [("FLOW", 7000), ("FLOW", 8000)]
    assert times(found.find(limit=2, newest_first=True)) == [("FLOW", 8000), ("FLOW", 7000)]


def test_alive(store):
    found = store(at(10, "FLOW", began=1), at(9000, "FLOW", began=20), at(9001, "FLOW", began=8000))
    window = {"since": BASE + 11 * 10**9, "until": BASE + 30 * 10**9}
    assert times(found.find(**window)) == []
    assert times(found.find(**window, alive=True)) == [("FLOW", 9000)]


def test_alive_by_the_kernels_time(store):
    """Of records other than FLOW the kernel may say when the flow began."""
    found = store(
        *[at(9000, kind, start=BASE + 20 * 10**9) for kind in ("UPDATE", "DESTROY")], at(9001, "DESTROY", **OTHER)
    )
    window = {"since": BASE + 11 * 10**9, "until": BASE + 30 * 10**9}
    assert times(found.find(**window)) == []
    assert times(found.find(**window, alive=True)) == [("DESTROY", 9000)]


def test_times_of_every_kind(store):
    found = store(at(1, "NEW"), at(7200, "NEW", **OTHER))
    moment = datetime.fromtimestamp(BASE // 10**9 + 100, UTC)
    assert times(found.find(until=moment)) == times(found.find(until=f"@{moment.timestamp():.0f}")) == [("NEW", 1)]
    assert times(found.find(since=moment)) == times(found.find(since=BASE + 10**11)) == [("NEW", 7200)]


def test_community_id_of_both_sides(store):
    found = store(FLOW)
    [flow] = found.find()
    assert flow.community_id_nat is not None
    for one in (flow.community_id, flow.community_id_nat):
        assert list(found.find(community_id=one)) == [flow]
    assert list(found.find(community_id="1:CBicJdZj0b8kPjK5Zy8MRAYdz94=")) == []


def test_wrong_arguments_are_told_of_at_once(store):
    found = store(FLOW)
    for wrong, error in (
        ({"filter": "dprt 4"}, FilterError),
        ({"since": "yesterdya"}, TimeError),
        ({"community_id": "1:x"}, ValueError),
    ):
        with pytest.raises(error):
            found.find(**wrong)
    with pytest.raises(FileNotFoundError):
        Store("/nonexistent").find()


def test_foreign_and_broken_files_are_passed_over(store, tmp_path):
    found = store(FLOW, at(4000, "NEW"), at(8000, "NEW"))
    names = sorted(os.listdir(tmp_path))
    (tmp_path / names[0]).write_bytes(b"no database")
    whole = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    (tmp_path / "flows-20200101T00.sqlite").symlink_to("/dev/null")
    (tmp_path / "notes.txt").write_text("of somebody else")
    os.mkfifo(tmp_path / "flows-20200101T01.sqlite")
    (tmp_path / "flows-20200101T02.sqlite").symlink_to("nowhere")
    assert times(found.find()) == [("NEW", 8000)]
    assert len(found.complaints) == 5 and all("passed over" in one for one in found.complaints)
    found.find()
    assert len(found.complaints) == 5


def test_a_forged_row_does_no_harm(store, tmp_path):
    import sqlite3

    found = store(FLOW, at(4000, "NEW"))
    names = sorted(os.listdir(tmp_path))
    for statement in (
        "UPDATE flow SET record = x'00'",
        "UPDATE flow SET record = 'text'",
        "UPDATE flow SET record = zeroblob(1000000)",
        "UPDATE flow SET record = zeroblob(500000000)",
        "UPDATE flow SET boot = 'x'",
        "UPDATE flow SET id = 9223372036854775807",
        "UPDATE meta SET value = zeroblob(100)",
        "DELETE FROM process",
        "DROP TABLE flow",
    ):
        with sqlite3.connect(tmp_path / names[0]) as connection:
            connection.execute(statement)
        connection.close()
        with Store(str(tmp_path)) as fresh:
            assert times(fresh.find())[-1:] == [("NEW", 4000)]
    assert found is not None


def test_alerts_find_their_flow(store):
    from nfct_fast.search.alert import Alert

    found = store(
        at(10, "FLOW", began=1), at(4000, "FLOW", began=3000), at(4001, "FLOW", began=3000, **OTHER), at(9000, "NEW")
    )

    def find(src, sport, dst, dport, seconds, **options):
        alert = Alert(1, "suricata", "", BASE + seconds * 10**9, None, 6, src, sport, dst, dport)
        lives = found.find_alert(alert, **{"window_ns": 10**9} | options)
        return times([life.flow for life in lives])

    assert find("10.0.0.5", 40000, "203.0.113.7", 443, 5) == [("FLOW", 10)]
    assert find("203.0.113.7", 443, "10.0.0.5", 40000, 3500) == [("FLOW", 4000)]  # an answer
    assert find("198.51.100.9", 50000, "203.0.113.7", 443, 3500) == [("FLOW", 4000), ("FLOW", 4001)]  # after NAT
    assert find("203.0.113.7", 443, "198.51.100.9", 50000, 5) == [("FLOW", 10)]
    assert find("10.0.0.5", 40000, "203.0.113.7", 443, 2000) == []
    assert find("10.0.0.5", 40000, "203.0.113.7", 443, 2000, window_ns=1990 * 10**9) == [("FLOW", 10), ("FLOW", 4000)]
    assert find("10.0.0.5", 40000, "203.0.113.7", 443, 9500) == [("NEW", 9000)]  # no end is known
    assert find("10.0.0.5", None, "203.0.113.7", 443, 5) == [("FLOW", 10)]  # by its ends alone
    assert find("10.0.0.5", 40000, "203.0.113.7", 443, 5, filter="uid 0") == []
    assert find("10.0.0.6", 40000, "203.0.113.7", 443, 5) == []


def test_story(store):
    child = {"ancestors": [(5, 5 * 10**8, b"sh")]}
    owner = FLOW["owner"] | child
    parent = {"owner": {"pid": 5, "uid": 0, "comm": b"sh", "start_ns": 5 * 10**8}}
    found = store(
        at(1, "NEW", owner=owner),
        at(2, "NEW", owner=owner, **OTHER),
        at(3, "NEW", **parent, orig=("10.0.0.5", 40002, "203.0.113.7", 443)),
        at(4, "NEW", owner=owner | {"pid": 8}, orig=("10.0.0.5", 40003, "203.0.113.7", 443)),
        at(5000, "NEW", owner=owner, orig=("10.0.0.5", 40004, "203.0.113.7", 443)),
    )
    [flow] = found.find("sport 40000")
    story = found.story(flow, window_ns=60 * 10**9)
    assert (times(story.others), times(story.of_parent), story.parent.comm) == ([("NEW", 2)], [("NEW", 3)], "sh")
    told = story.to_dict()
    assert told["flow"]["owner"]["pid"] == 7 and told["parent"]["pid"] == 5
    assert [other["original"]["sport"] for other in told["others"]] == [40001]


@settings(max_examples=4, deadline=None)
@given(st.lists(stored_flows(), min_size=15, max_size=15))
def test_each_key_finds_its_flows(flows):
    flows.sort(key=lambda flow: flow["time"])
    fd = os.memfd_create("recording")
    os.write(fd, record(flows))
    with tempfile.TemporaryDirectory() as directory, Store(directory) as store:
        make_store(directory, flows)
        for text in {text for flow in flows for text in own_words(flow)}:
            with Conntrack(replay=fd, filter=text) as conntrack:
                wanted = told(conntrack)
            assert told(store.find(text, all_records=True)) == wanted, text
    os.close(fd)
