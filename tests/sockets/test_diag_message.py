"""Replies of sock_diag, as bytes, are believed only if they are about the socket that was asked for."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.hooks import parse_reply

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
V4, V6 = socket.AF_INET, socket.AF_INET6
TIME_WAIT, LISTEN = 6, 10
ASK = (7, UDP, "10.0.0.1", 1000, "10.0.0.2", 53)
BY_FAMILY, ERROR, DONE = 20, 2, 3


def message(body, type=BY_FAMILY, seq=7):
    return struct.pack("=IHHII", 16 + len(body), type, 0, seq, 0) + body


def reply(src="10.0.0.1", sport=1000, dst="10.0.0.2", dport=53, family=V4, state=1, uid=5, inode=6, cookie=8, tail=b""):
    def pack(address):
        return socket.inet_pton(family, address).ljust(16, b"\0")

    return message(
        struct.pack("=BBBB", family, state, 0, 0)
        + struct.pack("!HH", sport, dport)
        + pack(src)
        + pack(dst)
        + struct.pack("=IQ", 0, cookie)
        + struct.pack("=IIIII", 0, 0, 0, uid, inode)
        + tail
    )


def test_reply_is_read():
    cgroup = struct.pack("=HHQ", 12, 21, 99)
    unknown = struct.pack("=HHI", 8, 1234, 0)
    assert parse_reply(reply(tail=unknown + cgroup), *ASK) == {
        "inode": 6,
        "uid": 5,
        "cookie": 8,
        "cgroup_id": 99,
        "kind": "exact",
        "state": 1,
        "ambiguous": False,
    }


@pytest.mark.parametrize(
    "other",
    [
        {"src": "10.0.0.3"},
        {"sport": 1001},
        {"dst": "10.0.0.3"},
        {"dport": 54},
        {"dst": "0.0.0.0"},
        {"dport": 0},
        {"src": "::1", "dst": "::2", "family": V6},
        {"src": "::", "dst": "::", "family": V6},
    ],
)
def test_reply_about_another_socket_is_not_believed(other):
    assert parse_reply(reply(**other), *ASK) is None


def test_mapped_reply_is_believed():
    assert parse_reply(reply("::ffff:10.0.0.1", 1000, "::ffff:10.0.0.2", family=V6), *ASK)["kind"] == "exact"
    assert parse_reply(reply("::", 1000, "::", 0, V6), *ASK)["kind"] == "wildcard"
    assert parse_reply(reply("::", 1000, "::", 0, V6, tail=struct.pack("=HHI", 5, 11, 1)), *ASK) is None  # IPV6_V6ONLY


def test_tcp_reply_without_connection_must_listen():
    ask = (7, TCP, *ASK[2:])
    assert parse_reply(reply(dst="0.0.0.0", dport=0, state=LISTEN), *ask)["kind"] == "listener"
    assert parse_reply(reply(dst="0.0.0.0", dport=0, state=7), *ask) is None


def test_unknowns():
    found = parse_reply(reply(uid=0, inode=0, cookie=2**64 - 1), *ASK)
    assert (found["uid"], found["inode"], found["cookie"]) == (None, None, None)
    assert parse_reply(reply(uid=5, inode=0), *ASK)["uid"] == 5
    assert parse_reply(reply(uid=0, inode=6), *ASK)["uid"] == 0
    assert parse_reply(reply(uid=5, inode=0, state=TIME_WAIT), *ASK)["uid"] is None


def test_stale_replies_are_passed_over():
    stale = message(struct.pack("=i", -2), ERROR, 6) + message(struct.pack("=i", -2), ERROR, 8)
    assert parse_reply(stale, *ASK) == -11
    assert parse_reply(stale + reply(), *ASK)["inode"] == 6


def test_errors():
    assert parse_reply(message(struct.pack("=i", -2), ERROR), *ASK) is None
    assert parse_reply(message(struct.pack("=i", -1), ERROR), *ASK) == -1
    assert parse_reply(message(struct.pack("=i", 1), ERROR), *ASK) == -74
    assert parse_reply(message(b"", ERROR), *ASK) == -74
    assert parse_reply(message(b"", BY_FAMILY), *ASK) == -74
    assert parse_reply(b"", *ASK) == -11


@given(st.binary(max_size=300))
def test_any_bytes(data):
    parse_reply(data, *ASK)


@given(st.integers(0, 200), st.binary(max_size=64), st.integers(0, 140), st.integers(0, 255))
def test_damaged_reply(cut, tail, at, value):
    data = bytearray(reply(tail=struct.pack("=HHQ", 12, 21, 99) + tail))
    data[at % len(data)] = value
    parse_reply(bytes(data[: len(data) - cut % len(data)]), *ASK)
