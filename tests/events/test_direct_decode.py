"""What is decoded without libnetfilter_conntrack is what the library has, byte for byte; all else is left to it."""

import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.events import record
from support.hooks import decode_by_library, decode_directly
from support.netns import inside

ORIG, REPLY, STATUS, PROTOINFO, HELP, NAT_SRC, TIMEOUT, MARK, COUNTERS_ORIG, COUNTERS_REPLY, USE, ID = range(1, 13)
MASTER, SEQ_ORIG, SECMARK, ZONE, SECCTX, TIMESTAMP, MARK_MASK, LABELS = 14, 15, 17, 18, 19, 20, 21, 22


def attribute(kind, payload):
    data = struct.pack("=HH", 4 + len(payload), kind) + payload
    return data + bytes(-len(data) % 4)


def nested(kind, *attributes):
    return attribute(kind | 0x8000, b"".join(attributes))


def tuple_of(kind, family, proto, *parts, zone=None):
    width = 4 if family == 2 else 16
    first = 1 if family == 2 else 3
    addresses = nested(
        1, attribute(first, bytes(range(1, 1 + width))), attribute(first + 1, bytes(range(101, 101 + width)))
    )
    extra = [] if zone is None else [attribute(3, struct.pack(">H", zone))]
    return nested(kind, addresses, nested(2, attribute(1, bytes([proto])), *parts), *extra)


def ports(sport, dport):
    return attribute(2, struct.pack(">H", sport)), attribute(3, struct.pack(">H", dport))


def icmp(first, number, type_, code):
    return (
        attribute(first, struct.pack(">H", number)),
        attribute(first + 1, bytes([type_])),
        attribute(first + 2, bytes([code])),
    )


def number(kind, value):
    return attribute(kind, struct.pack(">I", value))


def longs(kind, *values):
    return nested(kind, *[attribute(i + 1, struct.pack(">Q", value)) for i, value in enumerate(values)])


def tcp_info(state):
    return nested(
        PROTOINFO,
        nested(
            1,
            attribute(1, bytes([state])),
            attribute(2, b"\x07"),
            attribute(3, b"\x00"),
            attribute(4, b"\x03\x00"),
            attribute(5, b"\x00\x00"),
        ),
    )


def message(family, *attributes, type_=0, flags=0x600):
    body = b"".join(attributes)
    return struct.pack("=IHHIIBBH", 20 + len(body), (1 << 8) | type_, flags, 0, 0, family, 0, 0) + body


def usual(family=2):
    both = [
        tuple_of(kind, family, 6, *ports(*numbers)) for kind, numbers in ((ORIG, (40000, 80)), (REPLY, (80, 40000)))
    ]
    return [
        *both,
        number(STATUS, 0x188),
        number(TIMEOUT, 120),
        tcp_info(1),
        number(MARK, 7),
        number(ID, 0xFEDCBA98),
        number(USE, 1),
    ]


@pytest.fixture(scope="module")
def recorded():
    with inside():
        return record()[0]


@pytest.mark.root
def test_recorded_events_are_decoded_directly(recorded):
    for event in recorded:
        assert decode_directly(event) == decode_by_library(event) is not None


@pytest.mark.parametrize("family", [2, 10])
@pytest.mark.parametrize(
    "more",
    [
        [],
        [number(SECMARK, 9)],
        [attribute(ZONE, b"\x01\x02")],
        [longs(COUNTERS_ORIG, 1, 1 << 40), longs(COUNTERS_REPLY, 2, 3)],
        [longs(TIMESTAMP, 1 << 60)],
        [longs(TIMESTAMP, 5, 6)],
        [attribute(LABELS, bytes(16))],
        [number(MARK_MASK, 0xFF)],
        [attribute(27, bytes(8))],
        [attribute(200, b"new")],
        [nested(201, attribute(1, b"x"))],
    ],
)
def test_what_the_kernel_may_add_is_decoded_directly(family, more):
    made = message(family, *usual(family), *more)
    assert decode_directly(made) == decode_by_library(made) is not None


@pytest.mark.parametrize(
    ("family", "proto", "parts"),
    [
        (2, 17, ports(53, 5353)),
        (10, 17, ports(1, 65535)),
        (2, 136, ports(1, 2)),
        (2, 47, ports(0, 7)),
        (2, 50, ()),
        (10, 255, ()),
        *[(2, 1, icmp(4, 4321, type_, 0)) for type_ in (0, 8, 13, 14, 15, 16, 17, 18, 3)],
        *[(10, 58, icmp(7, 4321, type_, 0)) for type_ in (128, 129, 139, 140, 1)],
    ],
)
@pytest.mark.parametrize("zone", [None, 3])
def test_tuples_of_each_protocol(family, proto, parts, zone):
    for replies in ([], [tuple_of(REPLY, family, proto, *parts, zone=zone)]):
        made = message(family, tuple_of(ORIG, family, proto, *parts, zone=zone), *replies)
        assert decode_directly(made) == decode_by_library(made) is not None


@pytest.mark.parametrize(
    "made",
    [
        message(0, *usual()),
        message(10, *usual(2)),
        message(2, *usual()[1:]),
        message(2, *usual(), number(STATUS, 1)),
        message(2, *usual(), attribute(TIMEOUT, b"\x01")),
        message(2, *usual(), longs(COUNTERS_ORIG, 1, 2)),
        message(2, *usual(), nested(TIMESTAMP, attribute(2, bytes(8)))),
        message(2, *usual(), attribute(LABELS, bytes(3))),
        message(2, *usual(), nested(HELP, attribute(1, b"ftp\0"))),
        message(2, *usual(), attribute(SECCTX, b"")),
        message(2, *usual(), tuple_of(MASTER, 2, 6, *ports(1, 2))),
        message(2, *usual(), nested(SEQ_ORIG, number(1, 1))),
        message(2, *usual(), attribute(NAT_SRC, bytes(4))),
        message(2, *usual())[:-1],
        b"",
        bytes(19),
        message(2, tuple_of(ORIG, 2, 132, *ports(1, 2))),
        message(2, tuple_of(ORIG, 2, 33, *ports(1, 2))),
        message(2, tuple_of(ORIG, 2, 6, *ports(1, 2)), tuple_of(REPLY, 2, 17, *ports(2, 1))),
    ],
)
def test_what_is_not_of_the_usual_form_is_left_to_the_library(made):
    assert decode_directly(made) is None


def agree(made):
    direct = decode_directly(made)
    assert direct is None or direct == decode_by_library(made)


@pytest.mark.root
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_messages(recorded, data):
    made = bytearray(data.draw(st.sampled_from([*recorded, message(2, *usual()), message(10, *usual(10))])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(16, len(made) - 1))
        made[at] = data.draw(st.one_of(st.integers(0, 255), st.just(made[at] ^ 1)))
    agree(bytes(made[:4]) + bytes(made[4:]))


@pytest.mark.root
def test_every_byte_changed(recorded):
    for whole in (
        max(recorded, key=len),
        message(2, *usual(), longs(COUNTERS_ORIG, 1, 2), longs(COUNTERS_REPLY, 3, 4), longs(TIMESTAMP, 5, 6)),
        message(10, *usual(10)),
    ):
        for at in range(16, len(whole)):
            for value in {*range(0, 34), whole[at] ^ 0x80, whole[at] ^ 0x40, 255}:
                agree(whole[:at] + bytes([value]) + whole[at + 1 :])


def test_attributes_in_any_order_and_number():
    order = random.Random(7)
    pieces = [
        *usual(),
        *usual(10)[:2],
        longs(COUNTERS_ORIG, 1, 2),
        longs(COUNTERS_REPLY, 1, 2),
        longs(TIMESTAMP, 3, 4),
        attribute(ZONE, b"\x00\x05"),
        attribute(LABELS, bytes(8)),
        attribute(150, b"?"),
        nested(HELP, attribute(1, b"a\0")),
    ]
    decoded = 0
    for _ in range(20_000):
        made = message(order.choice((2, 2, 2, 10)), *order.choices(pieces, k=order.randrange(1, 9)))
        agree(made)
        decoded += decode_directly(made) is not None
    assert decoded > 500
