"""The socket filter decides as the expression does, interpreted on messages and run by the kernel on real flows."""

import random
import socket
import struct
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfct_fast.filters.expression import Condition, merged, pair_set, widened
from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.filters.wanted_protocols import wanted_protocols
from nfct_fast.records.messages import MessageDecoder
from nfct_fast.text.protocol import FAMILIES, protocol_name
from support import filters
from support.classic_bpf import find, interpret
from support.events import collect, listener, make_ping, make_tcp, make_udp, nft, recorded  # noqa: F401 -- a fixture
from support.hooks import verdicts
from support.netns import inside, ip

PAIRS = [(family, proto) for family in FAMILIES.values() for proto in range(256)]
PATTERNS = ["udp", "^ipv4/tcp$", "ipv6", "icmp", "tcp|udp", "^ipv4/(?!tcp)", "[0-9]$", "253", "^(?!ipv6/udp)"]


def accepts(flow_filter, message):
    return flow_filter.socket_filter is None or interpret(flow_filter.socket_filter, message) != 0


@pytest.fixture(scope="module")
def messages(recorded):
    return recorded[0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_protocol_is_decided_as_its_name_is(messages, pattern):
    wanted = pair_set(wanted_protocols(pattern))
    flow_filter = FlowFilter(pattern)
    assert flow_filter.protocols == wanted
    for message in messages[::30]:
        original = find(message, 20, len(message), 1)
        proto = find(message, original + 4, len(message), 2)
        number = find(message, proto + 4, len(message), 1) + 4
        patched = bytearray(message)
        for pair in PAIRS:
            patched[16], patched[number] = pair
            assert accepts(flow_filter, bytes(patched)) == (pair in wanted)


@settings(max_examples=60, deadline=None)
@given(filters.filters(filters.OF_MESSAGES), filters.flows())
def test_of_messages_it_decides_all_and_that_exactly(one, flow):
    flow_filter = made(one.text, recover=False)
    if flow_filter is None:
        assert not one.holds(flow)
        return
    kernel = accepts(flow_filter, filters.message(flow))
    # Without the reply it cannot tell: the kernel always sends it.
    assert kernel == one.holds(flow) or flow["reply"] is None and "reply" in one.text and kernel
    assert flow["reply"] is None or kernel == verdicts(flow_filter, flow)[0]


@settings(max_examples=60, deadline=None)
@given(filters.filters(filters.OF_FLOWS | filters.OF_OWNERS), filters.flows())
def test_what_it_refuses_nobody_wants(one, flow):
    flow_filter = made(one.text)
    if flow_filter is not None:
        assert accepts(flow_filter, filters.message(flow, 0x102)) or not one.holds(flow)


def made(text, **options):
    """The filter, or None if it is refused because nothing can match it."""
    try:
        return FlowFilter(None, text, **options)
    except ValueError as error:
        assert "no flow can match" in str(error)
        return None


@settings(max_examples=40, deadline=None)
@given(filters.filters(filters.OF_MESSAGES), filters.flows(), st.randoms(use_true_random=False))
def test_no_message_makes_it_read_beyond_the_end(one, flow, chosen):
    """That would refuse the message (the interpreter fails)."""
    flow_filter = made(one.text, recover=False)
    whole = filters.message(flow)
    for end in range(20, len(whole), 5):
        assert flow_filter is None or accepts(flow_filter, whole[:end]) in (True, False)
    for _ in range(20):
        damaged = bytearray(whole)
        for _ in range(chosen.randrange(1, 4)):
            damaged[chosen.randrange(16, len(damaged))] = chosen.choice([0, 1, 3, 4, 5, 8, 255])
        assert flow_filter is None or accepts(flow_filter, bytes(damaged)) in (True, False)


@pytest.mark.parametrize("text", ["udp", "dst 10.0.0.1", "dport 80", "reply src ::1", "not src ::1", "reply dport 1"])
def test_what_cannot_be_read_passes(text):
    """Whatever attribute of the tuples is missing or of another size."""
    orig = ("::2", 1, "::3", 2)
    flow = {"version": 6, "proto": 17, "orig": orig, "reply": orig, "zone": 0, "mark": 0}
    whole, flow_filter = filters.message(flow), FlowFilter(None, text)
    assert accepts(flow_filter, whole) == (text in ("udp", "not src ::1"))
    for end in range(20, 40):
        assert accepts(flow_filter, whole[:end])
    unknown = bytearray(whole)
    unknown[16] = 7  # AF_BRIDGE
    assert accepts(flow_filter, bytes(unknown))


@pytest.mark.parametrize(
    "data",
    [bytes(20), bytes(40), struct.pack("=IHHIIBBH", 20, 256, 0, 0, 0, 2, 0, 0)],
    ids=["short", "zeros", "no attributes"],
)
@pytest.mark.parametrize("text", ["udp", "dst 10.0.0.1", "dport 80", "reply src ::1"])
def test_what_is_no_event_passes(text, data):
    assert accepts(FlowFilter(None, text), data)


def test_a_mark_may_change_so_the_kernel_does_not_judge_by_it_where_lost_flows_are_recovered():
    assert FlowFilter(None, "mark 7").socket_filter is None
    assert FlowFilter(None, "mark 7 and tcp").socket_filter == FlowFilter("tcp").socket_filter
    assert FlowFilter(None, "mark 7", recover=False).socket_filter is not None


LONG = {
    "ports": ("dport " + ",".join(map(str, range(1, 10_000, 2))), 0.8),
    "addresses": ("src " + ",".join(f"10.{n // 250}.{n % 250}.1" for n in range(3500)), 0.4),
    "ipv6": ("dst " + ",".join(f"2001:db8:{n:x}::1" for n in range(2000)), 0.4),
    "not these": ("ip6 and not dst " + ",".join(f"2001:db8:{n:x}::1" for n in range(2000)), 0.4),
    "conditions": (" or ".join(f"dst 10.0.0.{n % 250} and not dport {n}" for n in range(1, 1200)), 0.4),
    "protocols": (" or ".join(["not tcp and ip", "not udp"] * 2000), 0),
}


@pytest.mark.parametrize("text, share", LONG.values(), ids=[*LONG])
def test_a_long_filter_is_left_to_the_reading_thread_in_part(text, share):
    """But what is unlike anything listed is refused in the kernel: a share of what is refused."""
    flow_filter = FlowFilter(None, text)
    program = flow_filter.socket_filter
    assert program is None or len(program) <= 8 * 4096
    chosen, refused, all_refused = random.Random(3), 0, 0
    addresses = {4: ["10.0.0.9", "10.1.7.1", "192.0.2.1"], 6: ["2001:db8:5::1", "::1", "2001:db8:5::"]}
    for _ in range(300):
        version = chosen.choice([4, 6])
        ends = [chosen.choice(addresses[version]) for _ in "12"]
        orig = (ends[0], chosen.randrange(65536), ends[1], chosen.randrange(65536))
        flow = {"version": version, "proto": 6, "orig": orig, "reply": orig, "zone": 0, "mark": 0, "netns": 1}
        heard, _, wanted = verdicts(flow_filter, flow | {"direction": 0, "owner": {}, "peer": {}})
        assert accepts(flow_filter, filters.message(flow)) == heard >= wanted
        refused, all_refused = refused + (not heard), all_refused + (not wanted)
    assert refused >= share * all_refused


@given(st.sets(st.integers(0, 60)), st.integers(1, 5), st.booleans())
def test_a_shorter_list_is_true_wherever_the_longer_one_is(numbers, most, negated):
    condition = Condition("zone", merged([(number, number) for number in numbers]), negated=negated)
    shorter = widened(condition, most)
    assert len(shorter.ranges) <= most

    def true(one):
        return {n for n in range(61) if any(low <= n <= high for low, high in one.ranges) != one.negated}

    assert true(condition) == set(range(61)) - numbers if negated else true(condition) == numbers
    assert true(shorter) >= true(condition)


EXPRESSIONS = [
    "udp", "ip6", "not tcp", "dst 127.0.0.1", "dst 127.0.0.0/8 and not sport 1-1023", "src ::1", "host ::/64 or icmp",
    "dport 5005", "not (dport 5005 or tcp)", "zone 7", "not zone 7", "reply dst 127.0.0.1", "reply src 203.0.113.7",
    "dst 203.0.113.7", "reply sport 5005", "port 5006 and family ipv4", "comm nobody", "udp and uid 0",
    "mark 0xdead0000/0xffff0000", "dport < 5006 and udp", "src 126.0.0.0-127.0.0.1", "dst ::-::2",
]  # fmt: skip


@pytest.mark.root
def test_the_kernel_decides_so_too():
    """Every expression on a socket of its own, beside one without; TCP, UDP, ping, NAT, zones, marks, all events."""
    chosen = [FlowFilter(None, text, recover=False) for text in EXPRESSIONS] + [FlowFilter(one) for one in PATTERNS]
    with inside() as name:
        ip("route", "add", "203.0.113.7", "dev", "lo", netns=name)
        nft(
            "table ip nat { chain out { type nat hook output priority -100;"
            " ip daddr 203.0.113.7 dnat to 127.0.0.1; }; };"
            "table inet t { chain early { type filter hook output priority -300; udp dport 5005 ct zone set 7; };"
            " chain c { type filter hook output priority 0; ct state new counter;"
            " udp dport 5006 ct mark set 0xdeadbeef; }; }"
        )
        filtered = [listener(one.socket_filter) for one in chosen]
        with closing(listener()) as everything:
            make_all()
            all_of_it = collect(everything, 0.3)
            heard = [collect(sock, 0.05) for sock in filtered]
        for sock in filtered:
            sock.close()
    assert len(all_of_it) > 20
    decoder = MessageDecoder()
    for text, one, messages in zip([*EXPRESSIONS, *PATTERNS], chosen, heard):
        expected = [message for message in all_of_it if accepts(one, message)]
        # An entry may end in between.
        assert [message for message in messages if message in all_of_it] == expected, text
        assert all(accepts(one, message) for message in messages), text
        for message in all_of_it:
            [flow] = decoder.decode(message)
            assert accepts(one, message) == verdicts(one, described(flow))[0], (text, flow)
    refused = [text for text, messages in zip(EXPRESSIONS, heard) if len(messages) < len(all_of_it)]
    assert set(EXPRESSIONS) - set(refused) == {"comm nobody"}
    assert [text for text, messages in zip(EXPRESSIONS, heard) if not messages] == ["reply src 203.0.113.7"]


def make_all():
    for version in (4, 6):
        make_udp(version)
        make_tcp(version)
        make_ping(version, 7)
    for port in (5005, 5006):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("203.0.113.7", 5007))


def described(flow):
    ends = [
        None if one is None else (one.src, one.sport or 0, one.dst, one.dport or 0)
        for one in (flow.original, flow.reply)
    ]
    return {
        "proto": flow.protonum,
        "orig": ends[0],
        "reply": ends[1],
        "zone": flow.zone,
        "mark": flow.mark,
        "netns": 0,
        "direction": 0,
        "owner": {},
        "peer": {},
    }


def test_all_needs_no_filter():
    flow_filter = FlowFilter()
    assert flow_filter.socket_filter is None and flow_filter.protocols == set(PAIRS)


@pytest.mark.parametrize("pattern", ["(", "*", "a{99999999999}", "nothing-like-it"])
def test_a_bad_expression_is_refused(pattern):
    with pytest.raises(ValueError, match="protocol"):
        FlowFilter(pattern)


def test_names_and_numbers_of_protocols_are_those_that_flows_have():
    for family, proto in PAIRS:
        name = protocol_name(family, proto)
        assert FlowFilter(None, name).protocols == {(family, proto)} == FlowFilter(f"^{name}$").protocols
