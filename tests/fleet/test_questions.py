"""Each question of `nfct-fast fleet` has the answer that is known of a small fleet, in ClickHouse's own engine."""

import datetime
import itertools
import json

import pytest

from nfct_fast.command import fleet
from nfct_fast.events.community_id import community_id
from support.columns import reader

reader("chdb")

from support.clickhouse import Engine  # noqa: E402

DAY = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
HOSTS = [f"host{number}" for number in range(6)]
NGINX = {"pid": 100, "entity_id": "nginx-nginx-ngin", "exe": "/usr/sbin/nginx", "unit": "nginx.service", "user": "www"}
SHELL = {"pid": 200, "entity_id": "shell-shell-shel", "exe": "/usr/bin/dash", "unit": "nginx.service", "user": "www"}
SHELL |= {"ancestors": [{"pid": 100, "entity_id": NGINX["entity_id"], "comm": "nginx"}], "cmdline": ["sh", "-c", "a b"]}
CURL = {"pid": 300, "entity_id": "curl--curl--curl", "exe": "/usr/bin/curl", "unit": "cron.service", "user": "root"}
UNKNOWN = {"pid": None, "reason": "closed"}
numbers = itertools.count()


def at(days=0, seconds=0):
    return DAY + datetime.timedelta(days, seconds)


def during(days, until):
    return {"since": at(days).strftime("%F %T"), "until": at(until).strftime("%F %T")}


def line(host, when, src, dst, dport=443, owner=CURL, direction="out", **more):
    number = next(numbers)
    original = {"src": src, "dst": dst, "sport": 40000 + number, "dport": dport}
    reply = {"src": dst, "dst": src, "sport": dport, "dport": 40000 + number}
    record = {
        "type": "FLOW",
        "time_ns": int(when.timestamp()) * 10**9 + number,
        "host": host,
        "boot_id": f"boot-{host}",
    }
    record |= {"proto": "ipv6/tcp" if ":" in src else "ipv4/tcp", "protonum": 6, "original": original, "reply": reply}
    record |= {"direction": direction, "id": number, "outcome": "answered", "owner": owner}
    record |= {"original_packets": 1, "original_bytes": 100, "reply_packets": 1, "reply_bytes": 1000}
    return record | more


def own(host):
    return f"10.0.0.{HOSTS.index(host) + 1}"


def usual():
    """What every host does each day."""
    for host, day in itertools.product(HOSTS, range(-7, 4)):
        for hour in range(3):
            yield line(host, at(day, 3600 * hour + 7 * hour * hour), own(host), "192.0.2.10")
            yield line(host, at(day, 3600 * hour), own(host), "10.0.0.100", 5432, NGINX)
            yield line(host, at(day, 3600 * hour), "10.0.0.77", own(host), 443, NGINX, "in")


NATTED = line(
    "host1", at(1, 5), "172.17.0.2", "198.51.100.7", owner=UNKNOWN | {"reason": "forwarded"}, direction="forward"
)
NATTED["reply"]["dst"] = own("host1")
OUTSIDE = [line("host2", at(2, number), f"203.0.113.{number}", own("host2"), 22, NGINX, "in") for number in range(5)]
SIX = line("host2", at(2), "2001:db8::9", "2001:db8::1", 22, NGINX, "in")
SHELLS = [line("host3", at(1, number), own("host3"), "198.51.100.7", 4444, SHELL) for number in range(2)]
BEACON = [
    line("host4", at(1, 60 * number + number % 3), own("host4"), "198.51.100.8", owner=SHELL) for number in range(40)
]
THEFT = line("host5", at(2), own("host5"), "198.51.100.9", original_bytes=1 << 33)
SCAN = [
    line("host0", at(3, number), own("host0"), f"10.9.0.{number}", 445, outcome="refused", reply_bytes=0)
    for number in range(30)
]
NAMELESS = [line("host1", at(3, number), own("host1"), "192.0.2.10", owner=UNKNOWN) for number in range(9)]
LOST = [
    {"type": "LOST", "time_ns": int(at(3, n).timestamp()) * 10**9, "host": "host2", "lost": 7 + n} for n in range(2)
]
LOST[1]["at_least"] = True


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    engine = Engine(tmp_path_factory.mktemp("chdb"))
    tables = engine.tables()
    records = [*usual(), NATTED, *OUTSIDE, SIX, *SHELLS, *BEACON, THEFT, *SCAN, *NAMELESS, *LOST]
    lines = list(map(json.dumps, records))
    tables.do("SYSTEM STOP MERGES")
    tables.add_lines(lines)
    tables.add_lines(lines[::2])  # delivered once more, and not merged yet
    yield tables
    engine.close()


def fields(rows, *names):
    return [tuple([row[name] for name in names]) for row in rows]


def test_each_question_is_asked_here():
    files = [name for name in fleet.names() if name.startswith("question-")]
    assert [int(name.split("-")[1]) for name in files] == list(range(1, 11))
    for number in range(1, 11):
        assert any(name.startswith(f"test_question_{number:02}") for name in globals())


def test_question_01_an_address_on_either_side_of_nat(tables):
    answer = tables.ask(1, address="198.51.100.7", **during(0, 4))
    seen = fields(answer, "host", "direction", "exe", "user", "reason", "flows", "processes")
    assert sorted(seen, key=str) == [
        ("host1", "forward", None, None, "forwarded", 1, []),
        ("host3", "out", "/usr/bin/dash", "www", None, 2, [SHELL["entity_id"]]),
    ]
    [of_host3] = [row for row in answer if row["host"] == "host3"]
    assert (of_host3["ports"], of_host3["bytes_of_the_originator"]) == ([["ipv4/tcp", 4444]], 200)
    masqueraded = tables.ask(1, address=own("host1"), **during(1, 2))
    assert ("forward", 1) in fields(masqueraded, "direction", "flows")
    assert tables.ask(1, address="2001:db8::9", **during(0, 4))[0]["host"] == "host2"
    assert tables.ask(1, address="198.51.100.7", **during(-7, 0)) == []


def test_question_02_community_id(tables):
    for record in (SHELLS[0], NATTED, SIX):
        tuple_ = record["original"]
        name = community_id(6, *(tuple_[key] for key in ("src", "dst", "sport", "dport")))
        [row] = tables.ask(2, id=name, **during(0, 4))
        assert (row["host"], row["sport"], row["pid"]) == (record["host"], tuple_["sport"], record["owner"]["pid"])
    outer = community_id(6, own("host1"), "198.51.100.7", NATTED["original"]["sport"], 443)
    assert fields(tables.ask(2, id=outer, **during(0, 4)), "host", "direction") == [("host1", "forward")]


def test_question_03_a_program(tables):
    answer = tables.ask(3, exe="/usr/bin/dash", **during(0, 4))
    seen = fields(answer, "host", "user", "unit", "flows", "destinations", "command_lines")
    assert seen == [
        ("host4", "www", "nginx.service", 40, 1, ["sh -c a b"]),
        ("host3", "www", "nginx.service", 2, 1, ["sh -c a b"]),
    ]
    assert answer[1]["usual_destinations"] == [["::ffff:198.51.100.7", 4444]]


def test_question_04_a_process_and_its_descendants(tables):
    answer = tables.ask(4, entity_id=NGINX["entity_id"], **during(1, 2))
    of_host3 = [row for row in answer if row["host"] == "host3"]
    seen = fields(of_host3, "itself", "exe", "other_end", "dport", "flows")
    assert sorted(seen, key=str) == [
        (0, "/usr/bin/dash", "::ffff:198.51.100.7", 4444, 2),
        (1, "/usr/sbin/nginx", "::ffff:10.0.0.100", 5432, 3),
        (1, "/usr/sbin/nginx", "::ffff:10.0.0.77", 443, 3),
    ]
    assert {row["exe"] for row in tables.ask(4, entity_id=SHELL["entity_id"], **during(0, 4))} == {"/usr/bin/dash"}


def test_question_05_new_destinations(tables):
    answer = tables.ask(5, unit="nginx.service", since=during(0, 4)["since"])
    assert sorted(fields(answer, "dst", "dport", "hosts", "flows")) == [
        ("::ffff:198.51.100.7", 4444, ["host3"], 2),
        ("::ffff:198.51.100.8", 443, ["host4"], 40),
    ]


def test_question_06_reached_from_outside(tables):
    answer = tables.ask(6, **during(0, 4))
    seen = fields(answer, "host", "proto", "dport", "unit", "flows", "answered", "addresses")
    assert seen == [
        ("host2", "ipv4/tcp", 22, "nginx.service", 5, 5, 5),
        ("host2", "ipv6/tcp", 22, "nginx.service", 1, 1, 1),
    ]


def test_question_07_beacons(tables):
    [row] = tables.ask(7, **during(1, 2))
    assert (row["host"], row["dst"], row["flows"], row["hosts"]) == ("host4", "::ffff:198.51.100.8", 40, 1)
    assert 58 <= row["every_s"] <= 62 and row["regular_share"] == 1


def test_question_08_bytes_out(tables):
    first, *others = tables.ask(8, **during(0, 4))
    assert fields([first], "host", "day", "unit", "bytes_sent") == [
        ("host5", "2026-11-22", "cron.service", (1 << 33) + 300)
    ]
    assert first["usual"] == 300 and all(row["bytes_sent"] < 1 << 20 for row in others)


def test_question_09_scans(tables):
    answer = tables.ask(9, targets=20, **during(3, 4))
    assert fields(answer, "host", "exe", "failed_targets", "addresses", "ports") == [
        ("host0", "/usr/bin/curl", 30, 30, 1)
    ]
    assert tables.ask(9, targets=31, **during(3, 4)) == []


def test_question_10_blind_spots(tables):
    answer = {row["host"]: row for row in tables.ask(10, **during(3, 4))}
    assert set(answer) == set(HOSTS)
    assert fields([answer["host1"]], "flows", "unknown", "percent", "reasons") == [(18, 9, 50, {"closed": 9})]
    assert fields([answer["host2"]], "unknown", "lost", "or_more") == [(0, 15, True)]
    assert fields([answer["host0"]], "flows", "lost", "or_more") == [(39, 0, False)]
    assert 86400 - 7300 < answer["host3"]["silent_s"] <= 86400
