"""Aggregator: no flow and no byte is lost or counted twice, owners stay apart, and memory is bounded."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast.output.ecs_lines import EcsLines
from nfct_fast.output.journal_entry import JournalEntry
from nfct_fast.output.syslog_message import SyslogMessage
from nfct_fast.output.template import Template
from nfct_fast.records.presentation import Presentation
from support import recordings
from support.aggregation import SECOND, key, model, write
from support.filters import message

BEGIN = 1_700_000_000 * SECOND
WINDOW = 10
CURL = {"pid": 100, "uid": 1000, "gid": 1000, "comm": b"curl", "exe": b"/usr/bin/curl", "cmdline": b"curl\0-s"}
NOBODY = {"pid": None, "uid": None, "reason": 3}
OWNERS = [
    {**CURL, "start_ns": SECOND},
    {**CURL, "start_ns": 2 * SECOND},  # the same pid, later
    {**CURL, "pid": 101, "start_ns": SECOND},
    {**CURL, "start_ns": SECOND, "cmdline": b"curl\0-S"},
    {**CURL, "start_ns": SECOND, "uid": 1001},
    NOBODY,
    {**NOBODY, "reason": 5},
    {**NOBODY, "uid": 1000, "reason": 5},
]


def described(time=0, sport=40000, dport=443, owner=OWNERS[0], peer=NOBODY, dst="192.0.2.1", nat=None, **more):
    src = "10.0.0.1"
    flow = {"version": 4, "proto": 6, "zone": 0, "mark": 0, "netns": 4026531840, "direction": 1, "type": "NEW"}
    flow |= {"orig": (src, sport, dst, dport), "reply": (dst, dport, nat or src, sport), "time": BEGIN + time}
    return flow | {"owner": owner, "peer": peer} | more


@st.composite
def flow(draw):
    kind = draw(st.sampled_from(["NEW", "FLOW", "DESTROY", "UPDATE"]))
    more = {}
    if draw(st.booleans()):
        more["counters"] = [draw(st.tuples(st.integers(0, 3), st.integers(0, 2**60))) for _ in range(2)]
    if kind == "FLOW":
        more["began"] = draw(st.sampled_from([None, 0, -SECOND]))  # before its end
    if draw(st.booleans()):
        more["start"] = draw(st.sampled_from([BEGIN - 5 * SECOND, BEGIN]))
    proto = draw(st.sampled_from([1, 6, 17]))
    made = described(
        # Mostly forward, and now and then the clock is set back.
        draw(st.sampled_from([0, 1, 500_000_000, SECOND, 9 * SECOND, 10 * SECOND, -SECOND // 2, -20 * SECOND])),
        draw(st.integers(40000, 40003)),
        draw(st.sampled_from([53, 443])),
        draw(st.sampled_from(OWNERS)),
        draw(st.sampled_from([NOBODY, OWNERS[2]])),
        draw(st.sampled_from(["192.0.2.1", "192.0.2.2"])),
        draw(st.sampled_from([None, "198.51.100.1"])),
        proto=proto,
        type=kind,
        mark=draw(st.sampled_from([0, 0, 7])),
        zone=draw(st.sampled_from([0, 0, 3])),
        direction=draw(st.sampled_from([1, 1, 2, 3])),
        **more,
    )
    return made


@st.composite
def sequences(draw):
    time, made = 0, draw(st.lists(flow(), max_size=60))
    for one in made:
        time += one["time"] - BEGIN
        one["time"] = BEGIN + time
        if "began" in one:
            one["began"] = 0 if one["began"] is None else one["time"] + one["began"]
    return made


def lines(data):
    return [json.loads(line) for line in data.splitlines()]


@settings(max_examples=100, deadline=None)
@given(sequences())
def test_lines_are_those_of_the_model(flows):
    plain, _ = write(flows)
    data, aggregator = write(flows, WINDOW)
    assert lines(data) == model(lines(plain), WINDOW * SECOND)
    assert (aggregator.count, aggregator.bytes, aggregator.held) == (0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(sequences(), st.integers(1, 5))
def test_sums_are_right_when_there_is_no_room(flows, room):
    plain, _ = write(flows)
    data, aggregator = write(flows, WINDOW, capacity=room)
    assert sums(lines(data)) == sums(lines(plain))
    assert (aggregator.count, aggregator.bytes) == (0, 0)


@settings(max_examples=20, deadline=None)
@given(sequences(), st.integers(0, 3000))
def test_sums_are_right_when_there_is_no_memory_for_processes(flows, most):
    plain, _ = write(flows)
    data, aggregator = write(flows, WINDOW, bytes_limit=most)
    assert sums(lines(data)) == sums(lines(plain))
    assert (aggregator.count, aggregator.bytes) == (0, 0)


def sums(found):
    """Count and bytes by what a group has in common."""
    of = {}
    for one in found:
        numbers = {name: one.pop(name, None) for name in ("count", "first_ns", "last_ns")}
        count, sent = of.get(key(one), (0, 0))
        of[key(one)] = (count + (numbers["count"] or 1), sent + one.get("original_bytes", 0))
    return of


def test_one_process_and_one_destination_are_one_line():
    data, _ = write([described(i * 1_000_000, 40000 + i) for i in range(1000)], WINDOW)
    [line] = lines(data)
    assert (line["count"], line["first_ns"], line["last_ns"]) == (1000, BEGIN, BEGIN + 999_000_000)
    assert line["original"] == {"src": "10.0.0.1", "dst": "192.0.2.1", "dport": 443}
    assert line["reply"] == {"src": "192.0.2.1", "dst": "10.0.0.1", "sport": 443}
    assert not {"status", "timeout", "community_id"} & set(line)


def test_a_single_flow_is_as_without():
    flows = [described(i * SECOND, dport=1000 + i) for i in range(20)]
    assert write(flows, WINDOW)[0] == write(flows)[0]


def test_a_group_ends_with_its_window():
    data, _ = write([described(time) for time in (0, 10 * SECOND - 1, 10 * SECOND, 19 * SECOND, 20 * SECOND)], WINDOW)
    assert [line.get("count", 1) for line in lines(data)] == [2, 2, 1]


def test_who_makes_endless_groups_pushes_out_nobody_else():
    many = 20_000
    mallory = {**CURL, "uid": 6666, "pid": 666, "start_ns": 3 * SECOND}
    flows = []
    for i in range(many):
        flows.append(described(i * 10_000, dport=i % 65536, dst=f"10.1.{i >> 8 & 255}.{i & 255}", owner=mallory))
        if i % 20 == 0:
            flows.append(described(i * 10_000, 30000 + i % 30000))
    data, aggregator = write(flows, WINDOW, capacity=256)
    honest = [line for line in lines(data) if line["owner"]["uid"] == 1000]
    assert [line["count"] for line in honest] == [many // 20]
    assert aggregator.early == many + 1 - 256
    assert sum([line.get("count", 1) for line in lines(data)]) == len(flows)


def test_long_command_lines_of_one_user_push_out_nobody_else():
    mallory = {**CURL, "uid": 6666, "start_ns": 3 * SECOND}
    flows = [described(dst=f"10.2.{i >> 8}.{i & 255}", owner={**mallory, "pid": 9}) for i in range(1000)]  # few bytes
    for i in range(2000):
        owner = {**mallory, "pid": 1000 + i, "cmdline": b"%04d" % i * 1000}
        flows.append(described(dst="192.0.2.66", owner=owner))
        flows.append(described(sport=i))
    data, aggregator = write(flows, WINDOW, bytes_limit=200_000)
    assert [line["count"] for line in lines(data) if line["owner"]["uid"] == 1000] == [2000]
    assert sum([line.get("count", 1) for line in lines(data)]) == len(flows)
    assert aggregator.early > 3000 - 50  # processes of 4 KB


def test_a_loss_is_written_at_once():
    owners = recordings.owner(), recordings.owner()
    flows = [recordings.flow(message(described(sport=40000 + i)), *owners, time=BEGIN + i) for i in range(4)]
    data, _ = write(recordings.whole(*flows[:2], recordings.loss(BEGIN + 1, 3), *flows[2:]), WINDOW)
    assert [(line["type"], line.get("lost"), line.get("count")) for line in lines(data)] == [
        ("LOST", 3, None),
        ("NEW", None, 4),
    ]


def test_a_template_has_a_star_for_any_port():
    template = "{ev.src} {ev.sport} {ev.dport} {ev.reply_dport} {ev.count} {ev.first} {ev.last} {ev.status} {ev.id}"
    flows = [described(i * SECOND, 40000 + i) for i in range(3)] + [described(dport=22)]
    data, _ = write(flows, WINDOW, formatter=Template(template))
    assert data.decode().splitlines() == [
        "10.0.0.1 * 443 * 3 1700000000.000 1700000002.000 - 77",
        "10.0.0.1 40000 22 40000 1 1700000000.000 1700000000.000 CONFIRMED|DST_NAT_DONE 77",
    ]


@pytest.mark.parametrize("kind", [SyslogMessage, JournalEntry])
def test_entries_have_no_port_that_is_not_that_of_all(kind):
    formatter = kind(Template("line"), Presentation())
    merged, _ = write([described(0, 40000 + i) for i in range(3)], WINDOW, formatter=formatter)
    single, _ = write([described()], WINDOW, formatter=formatter)
    text = [data.decode("latin-1").lower() for data in (merged, single)]
    assert ["count" in one for one in text] == [True, False]
    assert ["sport" in one.replace("reply_sport", "") for one in text] == [False, True]
    assert ["first" in one and "last" in one for one in text] == [True, False]


def test_a_document_says_when_the_first_and_the_last_was():
    flows = [described(i * SECOND, 40000 + i) for i in range(3)]
    [merged], [first] = (lines(write(some, WINDOW, formatter=EcsLines())[0]) for some in (flows, flows[:1]))
    assert merged["nfct"]["count"] == 3
    assert merged["event"]["start"] == merged["@timestamp"] == "2023-11-14T22:13:20.000000000Z"
    assert (merged["event"]["end"], merged["event"]["duration"]) == ("2023-11-14T22:13:22.000000000Z", 2 * SECOND)
    assert merged["source"] == {"ip": "10.0.0.1"}
    assert "community_id" not in merged["network"]
    assert merged["event"]["id"] != first["event"]["id"]  # which is a document as well, without --aggregate


def test_sockets_that_are_not_one_have_no_cookie():
    """Those of a server that all its flows have in common stay."""

    def recorded(sport, cookie):
        owners = recordings.owner(1, cookie=cookie), recordings.owner()
        return recordings.flow(message(described(sport=sport)), *owners, time=BEGIN + sport)

    for cookies, common in (((7, 7), 7), ((7, 7, 9), None), ((7, 9, 9), None)):
        flows = [recorded(40000 + i, cookie) for i, cookie in enumerate(cookies)]
        [line] = lines(write(recordings.whole(recordings.process(0), *flows), WINDOW)[0])
        assert (line["count"], line["owner"].get("cookie")) == (len(flows), common)
