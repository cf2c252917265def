"""Events that the kernel sent are decoded, and any other bytes do no harm."""

import random
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfct_fast.records.messages import MessageDecoder
from support.events import recorded  # noqa: F401 -- a fixture


def by_tuple(flows):
    found = {}
    for flow in flows:
        found.setdefault((flow.type, flow.proto, flow.sport, flow.dport), []).append(flow)
    return found


@pytest.fixture(scope="module")
def flows(recorded):
    decoder = MessageDecoder()
    decoded = [flow for message in recorded[0] for flow in decoder.decode(message, 123)]
    assert decoder.errors == 0
    return by_tuple(decoded)


def facts(flow):
    return (
        flow.type,
        flow.proto,
        flow.original,
        flow.reply,
        flow.time_ns,
        flow.start_ns,
        flow.stop_ns,
        flow.status,
        flow.mark,
        flow.zone,
        flow.timeout,
        flow.state,
        flow.id,
        flow.counters,
    )


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_new_and_destroy_of_each(recorded, flows, version, proto):
    name = f"ipv{version}/{proto}"
    sport, dport = recorded[1][name]
    address = "127.0.0.1" if version == 4 else "::1"
    for type in ("NEW", "DESTROY"):
        [flow] = flows[type, name, sport, dport]
        assert flow.original == (address, sport, address, dport, None, None, None)
        assert flow.reply == (address, dport, address, sport, None, None, None)
        assert (flow.time_ns, flow.mark, flow.zone) == (123, 0, 0)
        assert flow.id is not None and flow.owner.pid is None and flow.owner.reason == "off"
    assert flows["UPDATE", name, sport, dport]


def test_counters_and_times_are_of_destroy(recorded, flows):
    sport, dport = recorded[1]["ipv4/udp"]
    [new], [destroy] = flows["NEW", "ipv4/udp", sport, dport], flows["DESTROY", "ipv4/udp", sport, dport]
    assert new.counters is None and new.stop_ns is None
    assert destroy.counters == (1, 29, 1, 30)  # IP and UDP headers of 28 bytes
    assert destroy.start_ns < destroy.stop_ns
    assert new.id == destroy.id


@pytest.mark.parametrize("version", [4, 6])
def test_zone_and_mark_do_not_leak_into_the_next(flows, recorded, version):
    made = recorded[1]
    expected = {5005: (0, 7), 5006: (0xDEADBEEF, 0), 5007: (0, 0)}
    for port, values in expected.items():
        for type in ("NEW", "DESTROY"):
            [flow] = flows[type, f"ipv{version}/udp", *made[f"ipv{version}", port]]
            assert (flow.mark, flow.zone) == values


@pytest.mark.parametrize(("name", "request_", "reply"), [("ipv4/icmp", 8, 0), ("ipv6/icmpv6", 128, 129)])
def test_icmp(flows, name, request_, reply):
    [flow] = flows["NEW", name, None, None]
    assert flow.original[4:] == (request_, 0, 4321)
    assert flow.reply[4:] == (reply, 0, 4321)


def test_states(recorded, flows):
    sport, dport = recorded[1]["ipv4/tcp"]
    states = [flow.state for flow in flows["UPDATE", "ipv4/tcp", sport, dport]]
    assert 3 in states  # TCP_CONNTRACK_ESTABLISHED
    [udp] = flows["NEW", "ipv4/udp", *recorded[1]["ipv4/udp"]]
    assert udp.state is None


def test_a_decoder_used_again_says_what_a_fresh_one_says(recorded):
    messages = recorded[0]
    fresh = {message: [facts(flow) for flow in MessageDecoder().decode(message)] for message in messages}
    used = MessageDecoder()
    order = random.Random(5)
    for _ in range(20):
        for message in order.sample(messages, len(messages)):
            assert [facts(flow) for flow in used.decode(message)] == fresh[message]


def test_many_messages_in_one_datagram(recorded):
    messages = recorded[0]
    decoder = MessageDecoder()
    alone = [facts(flow) for message in messages for flow in decoder.decode(message)]
    padded = b"".join(message + bytes(-len(message) % 4) for message in messages)
    assert [facts(flow) for flow in decoder.decode(padded)] == alone


def attribute(kind, payload):
    data = struct.pack("=HH", 4 + len(payload), kind) + payload
    return data + bytes(-len(data) % 4)


def longer(message, *attributes):
    data = message + bytes(-len(message) % 4) + b"".join(attributes)
    return struct.pack("=I", len(data)) + data[4:]


def test_unknown_attributes_are_skipped(recorded):
    for message in recorded[0]:
        decoder = MessageDecoder()
        [plain] = decoder.decode(message)
        [more] = decoder.decode(longer(message, attribute(200, b"new"), attribute(201 | 0x8000, attribute(1, b"x"))))
        assert facts(plain) == facts(more)


@pytest.mark.parametrize("kind", [(1 << 8) | 9, (10 << 8) | 0, (2 << 8) | 0, 3])
def test_other_messages_give_nothing(recorded, kind):
    message = recorded[0][0]
    decoder = MessageDecoder()
    assert decoder.decode(message[:4] + struct.pack("=H", kind) + message[6:]) == []
    assert [flow.proto for flow in decoder.decode(message)] == [MessageDecoder().decode(message)[0].proto]


def test_no_message_no_flow():
    assert MessageDecoder().decode(b"") == []
    with pytest.raises(TypeError):
        MessageDecoder().decode(None)


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x80000000, 0xD688F16B, 0xFFFFFFF0, 0xFFFFFFFF])
def test_a_length_beyond_the_data_gives_nothing(recorded, length):
    assert MessageDecoder().decode(struct.pack("=I", length) + recorded[0][0][4:]) == []


@given(st.binary(max_size=400))
def test_random_bytes_do_no_harm(data):
    MessageDecoder().decode(data)


@given(st.binary(max_size=300), st.sampled_from([0, 2]), st.sampled_from([socket.AF_INET, socket.AF_INET6, 0, 7]))
def test_random_attributes_do_no_harm(data, kind, family):
    header = struct.pack("=IHHIIBBH", 20 + len(data), (1 << 8) | kind, 0x600, 0, 0, family, 0, 0)
    for flow in MessageDecoder().decode(header + data):
        facts(flow)
        repr(flow)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_message_does_no_harm_to_the_next(recorded, data):
    messages = recorded[0]
    decoder = MessageDecoder()
    damaged = bytearray(data.draw(st.sampled_from(messages)))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for flow in decoder.decode(bytes(damaged[: data.draw(st.integers(0, len(damaged)))])):
        facts(flow)
    good = data.draw(st.sampled_from(messages))
    assert [facts(flow) for flow in decoder.decode(good)] == [facts(flow) for flow in MessageDecoder().decode(good)]


def test_an_attribute_of_another_size_ends_nothing(recorded):
    """libnetfilter_conntrack since 1.0.9 calls exit(3) at one: root of a container could end the program
    by a message."""
    message = next(message for message in recorded[0] if len(MessageDecoder().decode(message)) == 1)
    decoder = MessageDecoder()
    for at in range(20, len(message)):
        for value in (*range(0, 48), 255):
            damaged = message[:at] + bytes([value]) + message[at + 1 :]
            for flow in decoder.decode(damaged):
                facts(flow)
    assert decoder.errors > 500
    assert [facts(flow) for flow in decoder.decode(message)] == [
        facts(flow) for flow in MessageDecoder().decode(message)
    ]
