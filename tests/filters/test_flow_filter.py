"""A filter keeps what it says, as a slow and obvious evaluator has it, and refuses early what it would not keep."""

from hypothesis import given, settings

from nfct_fast.filters.flow_filter import FlowFilter
from support import filters
from support.hooks import verdicts

EVERYTHING = filters.filters(filters.OF_FLOWS | filters.OF_OWNERS)


@settings(max_examples=150, deadline=None)
@given(EVERYTHING, filters.flows())
def test_it_keeps_what_it_says(one, flow):
    try:
        flow_filter = FlowFilter(None, one.text)
    except ValueError as error:
        assert "no flow can match" in str(error) and not one.holds(flow)
        return
    heard, possible, wanted = verdicts(flow_filter, flow)
    assert wanted == one.holds(flow)
    assert heard >= possible >= wanted


@settings(max_examples=60, deadline=None)
@given(filters.filters(filters.OF_FLOWS), filters.flows())
def test_what_the_flow_decides_is_decided_before_attribution(one, flow):
    try:
        flow_filter = FlowFilter(None, one.text)
    except ValueError:
        return
    _, possible, wanted = verdicts(flow_filter, flow)
    assert possible == wanted == one.holds(flow)


@settings(max_examples=60, deadline=None)
@given(filters.filters(filters.OF_FLOWS), filters.filters(filters.OF_OWNERS), filters.flows())
def test_a_refused_tuple_costs_no_attribution_whatever_the_owner_is(of_flow, of_owner, flow):
    try:
        flow_filter = FlowFilter(None, f"({of_flow.text}) and ({of_owner.text})")
    except ValueError:
        return
    assert verdicts(flow_filter, flow)[1] == of_flow.holds(flow)


FLOW = {
    "proto": 6,
    "orig": ("192.0.2.1", 40000, "203.0.113.7", 443),
    "reply": ("10.0.0.5", 8443, "198.51.100.9", 50000),
    "zone": 0,
    "mark": 0,
    "netns": 4026531840,
    "direction": 3,
    "owner": {
        "pid": 7,
        "uid": 1000,
        "gid": 100,
        "comm": b"curl",
        "exe": b"/usr/bin/curl",
        "unit": b"user@1000.service",
    },
    "peer": {"reason": 3},
}


def keeps(text, **changes):
    return verdicts(FlowFilter(None, text), FLOW | changes)[2]


def test_the_original_direction_counts_and_the_reply_by_its_own_words():
    assert keeps("dst 203.0.113.7 and dport 443") and not keeps("dst 10.0.0.5") and not keeps("host 10.0.0.5")
    assert keeps("reply src 10.0.0.5 and reply sport 8443 and reply dst 198.51.100.9")
    assert not keeps("reply src 10.0.0.5", reply=None)


def test_unknown_is_not_any_value():
    unknown = {"reason": 3}
    assert keeps("uid 1000") and not keeps("uid 0")
    assert not keeps("uid 0", owner=unknown) and keeps("not uid 0", owner=unknown) and keeps("uid != 0", owner=unknown)
    assert keeps("reason closed", owner=unknown) and keeps("reason *") and not keeps("owner reason *")
    assert not keeps("dport 0", proto=1) and keeps("not dport 0", proto=1)


def test_names_are_completed_as_the_usual_tools_do():
    docker = {"pid": 9, "container": b"3f" * 32, "exe": b"/opt/a b/nginx", "unit": b"nginx.service"}
    for text in ("container 3f3f3f3f3f3f", "exe nginx", "exe '/opt/a b/*'", "unit nginx", "unit ngin?.service"):
        assert keeps(text, owner=docker), text
    for text in ("container 3f3f", "exe ginx", "unit ngin", "unit nginx.socket"):
        assert not keeps(text, owner=docker), text
    assert keeps("unit 'a\\x2db.mount'", owner={"pid": 1, "unit": b"a\\x2db.mount"})
    assert keeps("comm 'a\\*'", owner={"pid": 1, "comm": b"a*"}) and not keeps(
        "comm 'a\\*'", owner={"pid": 1, "comm": b"ab"}
    )
    assert keeps("user root", owner={"uid": 0}) and not keeps("user root")


def test_a_unit_is_known_of_a_socket_whose_process_is_not():
    assert keeps("unit sshd", owner={"unit": b"sshd.service", "reason": 4})
    assert not keeps("comm *", owner={"unit": b"sshd.service", "comm": b"sshd", "reason": 4})


def test_invalid_utf8_is_matched_by_its_bytes():
    odd = {"pid": 1, "comm": b"\xff\xfe\x80", "cmdline": b"a\xc3\0b\n"}
    assert keeps("comm \udcff*", owner=odd) and keeps("comm ???", owner=odd) and not keeps("comm ??", owner=odd)
    assert keeps("cmdline 'a? b*'", owner=odd)
