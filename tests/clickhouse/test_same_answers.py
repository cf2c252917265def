"""What is found in ClickHouse is what is found in a store that has the same flows."""

import os
import subprocess
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast import ClickHouseStore, Store
from support import filters
from support.cli import PROGRAM, Program, until
from support.clickhouse_server import clickhouse
from support.culprit import SHOWN, Culprit
from support.stored_flows import BASE, CGROUPS, CONDITIONS, FLOW, HOUR, own_words, stored_flows
from support.stores import make_store

NS = 10**9


@pytest.fixture(scope="module")
def server():
    with clickhouse() as server:
        yield server


@pytest.fixture
def table(server):
    server.ask("TRUNCATE TABLE nfct_flows")
    server.ask("TRUNCATE TABLE nfct_losses")
    return server


def told(flows):
    return sorted([(flow.time_ns, flow.type, flow.to_json()) for flow in flows])


@st.composite
def told_flows(draw, least, most):
    """As a logger tells them: an owner without a process has a reason, and no record is told twice."""
    flows = draw(st.lists(stored_flows(), min_size=least, max_size=most))
    for number, flow in enumerate(flows):
        flow["time"] += number
        for end in ("owner", "peer"):
            if flow[end]["pid"] is None and not flow[end]["reason"]:
                flow[end] |= {"reason": 3}
    return sorted(flows, key=lambda flow: flow["time"])


def fill(server, directory, flows):
    """Store flows, and insert the lines of them, which are those of --json."""
    make_store(directory, flows)
    server.ask("TRUNCATE TABLE nfct_flows")
    with Store(directory) as store:
        server.insert([flow.to_json() for flow in store.find(all_records=True)])


OPTIONS = ({}, {"all_records": True}, {"all_records": True, "newest_first": True})


@settings(max_examples=4, deadline=None)
@given(
    told_flows(20, 60),
    st.lists(filters.filters(CONDITIONS), min_size=6, max_size=6),
    st.lists(st.tuples(st.sampled_from(OPTIONS), st.booleans(), st.booleans()), min_size=6, max_size=6),
    st.tuples(st.integers(0, 3 * HOUR), st.integers(0, 3 * HOUR)).map(sorted),
)
def test_by_any_filter(server, flows, some, options, times):
    since, until = (BASE + time for time in times)
    with tempfile.TemporaryDirectory() as directory:
        fill(server, directory, flows)
        with Store(directory) as store, ClickHouseStore(server.url) as table:
            assert told(table.find(all_records=True)) == told(store.find(all_records=True))
            for one, (option, within, alive) in zip(some, options):
                words = option | ({"since": since, "until": until, "alive": alive} if within else {})
                try:
                    wanted = list(store.find(one.text, **words))
                except ValueError as error:
                    assert "no flow can match" in str(error)
                    continue
                found = list(table.find(one.text, **words))
                assert told(found) == told(wanted), (one.text, words)
                assert [flow.time_ns for flow in found] == [flow.time_ns for flow in wanted]


@settings(max_examples=2, deadline=None)
@given(told_flows(20, 20))
def test_each_key_finds_its_flows(server, flows):
    with tempfile.TemporaryDirectory() as directory:
        fill(server, directory, flows)
        with Store(directory) as store, ClickHouseStore(server.url) as table:
            by_key = {text.partition(" ")[0]: text for flow in flows for text in own_words(flow)}
            for text in by_key.values():
                assert told(table.find(text, all_records=True)) == told(store.find(text, all_records=True)), text


def at(seconds, kind, **changes):
    began = {"began": BASE + changes.pop("began") * NS} if "began" in changes else {}
    return FLOW | changes | began | {"time": BASE + seconds * NS, "type": kind}


def flows_of_a_day():
    """Of a shell and its children, with names as only the hostile have them, of which some ended."""
    shell = {"pid": 5, "uid": 0, "comm": b"sh", "start_ns": 5 * 10**8, "cgroup": CGROUPS[3]}
    child = shell | {"pid": 7, "uid": 1000, "ancestors": [(5, 5 * 10**8, b"s\xffh"), (1, 10**7, b"init")]}
    names = [
        b"curl",
        b"ev\nil\x1b[2J",
        b"\xff\xfe",
        "k\u00f6nig \U0001f600".encode(),
        b"'; DROP TABLE x --",
        b'"\\',
        b" ",
    ]
    for number in range(60):
        name = names[number % len(names)]
        owner = child | {
            "pid": 7 + number // 4,
            "comm": name,
            "exe": b"/usr/bin/" + name,
            "cmdline": [name, b"a b\0" + name, name + b"\0", b"\0\0x"][number % 4],
            "cgroup": CGROUPS[number % 4],
        }
        if number % 9 == 5:
            owner = {"reason": 4, "cgroup": CGROUPS[number % 4], "uid": 1000}
        ends = ("10.0.0.5", 40000 + number, "203.0.113.7", 443)
        reply = ("203.0.113.7", 443, "198.51.100.9" if number % 3 else "10.0.0.5", 40000 + number)
        changes = {"orig": ends, "reply": reply, "owner": owner if number % 5 else shell}
        if number % 7 == 1:
            v6 = ("2001:db8::1", 40000 + number, "2001:db8::7", 443)
            changes |= {"version": 6, "orig": v6, "reply": (*v6[2:], *v6[:2]), "proto": 17}
        if number % 10 == 4:
            changes |= {"direction": 3, "peer": shell}
        yield at(number * 60, "NEW", **changes)
        if number % 2:
            yield at(number * 60 + 30, "UPDATE", **changes)
        if number % 3:
            yield at(number * 120 + 40, "DESTROY", start=BASE + number * 60 * NS, **changes)
        else:
            yield at(number * 120 + 41, "FLOW", began=number * 60, **changes, zone=7, mark=9)


@pytest.fixture(scope="module")
def day(server):
    """A directory that has the same flows as the table."""
    with tempfile.TemporaryDirectory() as directory:
        fill(server, directory, sorted(flows_of_a_day(), key=lambda flow: flow["time"]))
        yield directory


def run(*words, **options):
    return subprocess.run([*PROGRAM, "find", *words], capture_output=True, timeout=60, **options)


def alert(src, sport, dst, dport, seconds):
    moment = time.strftime("%FT%T", time.gmtime(BASE // NS + seconds))
    ends = f'"src_ip":"{src}","src_port":{sport},"dest_ip":"{dst}","dest_port":{dport}'
    return f'{{"timestamp":"{moment}.5+0000","event_type":"alert",{ends},"proto":"TCP","alert":{{"signature":"x"}}}}\n'


ALERTS = alert("203.0.113.7", 443, "198.51.100.9", 40007, 500) + alert("10.0.0.5", 40012, "203.0.113.7", 443, 730)
LINE = " ".join(
    ["{ts}", *[f"{{ev.{name}}}" for name in ("host", "type", "src", "sport", "outcome", "duration", "status", "zone")]]
    + [f"{{info.{name}}}" for name in ("pid", "user", "group", "start", "cmdline", "service", "unit", "user_unit")]
    + ["{info.entity_id} {info.parent} {info.reason} {peer.comm} {peer.user}"]
)


@pytest.mark.parametrize(
    "words",
    [
        ("--json", "--events"),
        ("-f", LINE, "--events", "-t", "%s.%f"),
        ("--json", "--community-id", "7", "-r", "-n", "9"),
        ("--json", "--alert", "-", "--window", "5min"),
        ("--alert", "-", "-f", LINE),
        ("--json", "--story", "sport", "40001-40004"),
        ("-f", LINE, "--around", f"@{BASE // NS + 600} ±5m", "--alive", "unit", "a"),
        ("-f", LINE, "-p", "v6", "-n", "3"),
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_byte_for_byte(server, day, words):
    outputs = []
    for place in (("--store", day), ("--clickhouse", server.url)):
        found = run(*place, *words, input=ALERTS.encode())
        assert (found.returncode, found.stderr) == (0, b"")
        outputs.append(found.stdout.replace(b"no flow of any host", b"no flow of this host"))
    assert outputs[0].count(b"\n") > 1
    assert outputs[0] == outputs[1]


def test_a_community_id(server, day):
    with Store(day) as store, ClickHouseStore(server.url) as table:
        flow = next(iter(store.find("sport 40002")))
        assert flow.community_id_nat is not None
        for one in (flow.community_id, flow.community_id_nat):
            assert told(table.find(community_id=one, all_records=True)) == told(
                store.find(community_id=one, all_records=True)
            )
        assert list(table.find(community_id="1:CBicJdZj0b8kPjK5Zy8MRAYdz94=")) == []


def test_text_says_whose_flow_it_is(server, day):
    local = run("--store", day, "-n", "1").stdout.decode()
    [line] = run("--clickhouse", server.url, "-n", "1").stdout.decode().splitlines()
    assert line == local.rstrip("\n").replace(": ipv4", f" {os.uname().nodename}: ipv4", 1)
    story = run("--clickhouse", server.url, "--story", "-n", "1").stdout.decode()
    assert f"\n  host        {os.uname().nodename}\n" in story
    assert (
        story.replace(f"  host        {os.uname().nodename}\n", "")
        == run("--store", day, "--story", "-n", "1").stdout.decode()
    )


def test_what_a_logger_saw(tracked, table):
    """Of a program with a hostile name and its ancestors, by the lines that the logger wrote beside its store.

    The last one here, as it empties the table.
    """
    with tempfile.TemporaryDirectory(prefix="nfct-fast-test-") as above:
        os.chmod(above, 0o711)
        directory = f"{above}/flows"
        options = ("--flows", "-e", "new", "--store", directory, "--json", "--community-id", "-p", "udp")
        with Program(tracked, *options) as program, Culprit(tracked) as culprit:
            program.await_lines(1)

            def is_stored():
                with Store(directory) as store:
                    return list(store.find(f"sport {culprit.sport}"))

            until(is_stored, what="the flow in the store")
            program.end()
        table.insert(program.lines)
        for words in (("--json", "--events"), ("-f", LINE), ("--json", "--story", "sport", str(culprit.sport))):
            local, fleet = (run(*place, *words) for place in (("--store", directory), ("--clickhouse", table.url)))
            assert (fleet.returncode, fleet.stderr) == (0, b"") and fleet.stdout == local.stdout
        assert SHOWN.encode() in run("--clickhouse", table.url, "-f", "{info.comm}").stdout
