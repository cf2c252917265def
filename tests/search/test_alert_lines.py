"""Lines of Suricata and Zeek become alerts; what is no such line is told of and passed over."""

import io
import json

import communityid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast.search.alert import Alert
from nfct_fast.search.alert_lines import LINE_MOST, read_alerts

SURICATA = {
    "timestamp": "2026-11-24T03:12:07.123456+0100",
    "event_type": "alert",
    "src_ip": "10.0.0.5",
    "src_port": 51234,
    "dest_ip": "203.0.113.7",
    "dest_port": 443,
    "proto": "TCP",
    "alert": {"signature": "ET MALWARE something", "severity": 1},
}
AT = 1_795_486_327_123_456_000
ZEEK = {
    "ts": 1795486327.123456,
    "uid": "CKXrNb2",
    "id.orig_h": "10.0.0.5",
    "id.orig_p": 51234,
    "id.resp_h": "203.0.113.7",
    "id.resp_p": 443,
    "proto": "tcp",
    "duration": 1.5,
}
TABLE = (
    "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
    "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\n"
    "#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\n"
    "1795486327.123456\tCKXrNb2\t10.0.0.5\t51234\t203.0.113.7\t443\ttcp\t-\t1.500000\n"
    "1795486327.123456\tCKXrNb3\tfe80::1\t128\tfe80::2\t0\ticmp\t-\t-\n"
    "#close\t2026-11-24-04-00-00\n"
)


def read(data):
    bad = []
    data = data if isinstance(data, bytes) else data.encode()
    return list(read_alerts(io.BytesIO(data), lambda number, why: bad.append((number, why)))), bad


def ends(alert):
    return alert.proto, alert.src, alert.sport, alert.dst, alert.dport


def test_suricata():
    [alert], bad = read(json.dumps(SURICATA))
    assert ends(alert) == (6, "10.0.0.5", 51234, "203.0.113.7", 443) and bad == []
    assert (alert.source, alert.what) == ("suricata alert", "ET MALWARE something")
    assert (alert.time_ns, alert.until_ns) == (AT, None)


def test_a_flow_of_suricata_has_its_own_times():
    flow = {"start": "2026-11-24T03:10:00.000000+0100", "end": "2026-11-24T03:12:00.000000+0100"}
    [alert], _ = read(json.dumps(SURICATA | {"event_type": "flow", "flow": flow}))
    assert (alert.until_ns - alert.time_ns, AT - alert.until_ns) == (120_000_000_000, 7_123_456_000)


def test_icmp_of_suricata():
    line = SURICATA | {"proto": "ICMP", "icmp_type": 8, "icmp_code": 0, "src_port": None, "dest_port": None}
    [alert], _ = read(json.dumps(line))
    assert ends(alert) == (1, "10.0.0.5", 8, "203.0.113.7", 0)


@pytest.mark.parametrize("change", [{}, {"ts": "2026-11-24T02:12:07.123456Z"}])
def test_zeek_json(change):
    [alert], bad = read(json.dumps(ZEEK | change))
    assert ends(alert) == (6, "10.0.0.5", 51234, "203.0.113.7", 443) and bad == []
    assert abs(alert.time_ns - AT) < 1000 and alert.until_ns - alert.time_ns == 1_500_000_000


def test_zeek_table():
    [first, second], bad = read(TABLE)
    assert ends(first) == (6, "10.0.0.5", 51234, "203.0.113.7", 443) and bad == []
    assert (first.time_ns, first.until_ns, first.source) == (AT, AT + 1_500_000_000, "zeek conn")
    assert ends(second) == (58, "fe80::1", 128, "fe80::2", 0)


def test_zeek_notice():
    notice = ZEEK | {"note": "SSL::Invalid_Server_Cert", "msg": "bad"}
    [alert], _ = read(json.dumps(notice))
    assert (alert.source, alert.what) == ("zeek notice", "SSL::Invalid_Server_Cert: bad")
    without = {"ts": 1795486327.1, "note": "Scan", "src": "10.0.0.5", "dst": "10.0.0.6", "p": 22, "proto": "tcp"}
    [alert], _ = read(json.dumps(without))
    assert ends(alert) == (6, "10.0.0.5", None, "10.0.0.6", 22) and alert.community_id is None


@pytest.mark.parametrize("change", [{}, {"proto": "UDP"}, {"src_ip": "2001:db8::1", "dest_ip": "2001:db8::2"}])
def test_its_community_id_is_that_of_the_reference(change):
    [alert], _ = read(json.dumps(SURICATA | change))
    make = communityid.FlowTuple.make_udp if alert.proto == 17 else communityid.FlowTuple.make_tcp
    assert alert.community_id == communityid.CommunityID().calc(make(alert.src, alert.dst, alert.sport, alert.dport))


def test_lines_that_tell_of_no_flow_are_no_errors():
    assert read('{"event_type":"stats","stats":{}}\n\n#close\n') == ([], [])


BAD = {
    "deep": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "deep list": b'{"a":' + b"[" * 200_000,
    "huge": b'{"a":"' + b"x" * LINE_MOST * 3 + b'"}',
    "binary": b"\x00\xff\x80{}",
    "half": json.dumps(SURICATA).encode()[:100],
    "list": b"{}, 1",
    "no table": b"1795486327.1\tC\t10.0.0.5",
    **{
        name: json.dumps(SURICATA | change).encode()
        for name, change in {
            "no address": {"src_ip": "host"},
            "address of another type": {"src_ip": 7},
            "families": {"src_ip": "::1"},
            "scope": {"src_ip": "fe80::1%eth0", "dest_ip": "::1"},
            "protocol": {"proto": "quux"},
            "no protocol": {"proto": None},
            "nested protocol": {"proto": {"a": 1}},
            "port": {"src_port": 65536},
            "negative": {"src_port": -1},
            "float": {"src_port": 1.5},
            "true": {"src_port": True},
        }.items()
    },
    "long number": json.dumps(SURICATA).replace("51234", "9" * 6000).encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_passed_over(name):
    good = json.dumps(SURICATA).encode()
    alerts, bad = read(good + b"\n" + BAD[name] + b"\n" + good)
    assert [alert.line for alert in alerts] == [1, 3]
    [(number, why)] = bad
    assert number == 2 and "\n" not in why and len(why) < 200


@pytest.mark.parametrize(
    "ts", [float("nan"), float("inf"), 1e300, -5, "x", "9" * 50, None, [], True, "2026-11-24T03:12:07"]
)
def test_a_time_that_is_none_is_unknown(ts):
    [alert], _ = read(json.dumps(ZEEK | {"ts": ts}))
    assert (alert.time_ns, alert.until_ns) == (None, None)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from(["1.2.3.4", "tcp"]),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*SURICATA, *ZEEK, "note", "msg", "src", "dst", "p", "flow"]), JUNK))
def test_whatever_fields_have_it_is_an_alert_or_an_error(changes):
    for line in (SURICATA | changes, ZEEK | changes, changes):
        alerts, bad = read(json.dumps(line))
        assert len(alerts) + len(bad) <= 1
        for alert in alerts:
            assert isinstance(alert, Alert) and alert.filter.startswith("proto ")
            assert alert.community_id is None or alert.community_id.startswith("1:")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data):
    read(TABLE.encode() + data)
    read(data)
