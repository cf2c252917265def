"""The socket filter decides as the regular expression does, interpreted on real messages and run by the kernel."""

import re
import socket
import struct
from contextlib import closing

import pytest

from nfct_fast.events.filter import socket_filter, wanted_protocols
from nfct_fast.records.messages import MessageDecoder
from nfct_fast.text.protocol import FAMILIES, protocol_name
from support.events import collect, listener, make_ping, make_tcp, make_udp, nft, recorded  # noqa: F401 -- a fixture
from support.netns import inside

PAIRS = [(family, proto) for family in FAMILIES.values() for proto in range(256)]
PATTERNS = ["udp", "^ipv4/tcp$", "ipv6", "icmp", "tcp|udp", "^ipv4/(?!tcp)", "[0-9]$", "253", "^(?!ipv6/udp)"]


def find(data, at, end, kind):
    """The kernel's nla_find."""
    while end - at >= 4:
        length, type = struct.unpack_from("=HH", data, at)
        if length < 4 or length > end - at:
            return 0
        if type & 0x3FFF == kind:
            return at
        at += length + -length % 4
    return 0


def interpret(program, data):
    """Classic BPF as net/core/filter.c runs it, as far as it is used here."""
    code, at, a, x = list(struct.iter_unpack("=HBBI", program)), 0, 0, 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x06:
            return k
        if op == 0x00:
            a = k
        elif op == 0x01:
            x = k
        elif op == 0x07:
            x = a
        elif op == 0x05:
            at += k
        elif op == 0x15:
            at += yes if a == k else no
        elif op == 0x30:
            a = data[k]
        elif op == 0x50:
            a = data[x + k]
        elif op == 0x20 and k == 0xFFFFF000 + 12:
            a = find(data, a, len(data), x)
        elif op == 0x20 and k == 0xFFFFF000 + 16:
            a = find(data, a + 4, a + struct.unpack_from("=H", data, a)[0], x)
        else:
            raise AssertionError(f"unknown instruction {op:#x} {k:#x}")


@pytest.fixture(scope="module")
def messages(recorded):
    return recorded[0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pair_is_decided_as_the_name_is(messages, pattern):
    wanted = wanted_protocols(pattern)
    assert wanted == {pair for pair in PAIRS if re.search(pattern, protocol_name(*pair))}
    program = socket_filter(wanted)
    for message in messages[::5]:
        original = find(message, 20, len(message), 1)
        proto = find(message, original + 4, len(message), 2)
        number = find(message, proto + 4, len(message), 1) + 4
        patched = bytearray(message)
        for pair in PAIRS:
            patched[16], patched[number] = pair
            assert (interpret(program, bytes(patched)) != 0) == (pair in wanted)


def test_what_cannot_be_read_passes():
    program = socket_filter(wanted_protocols("udp"))
    for data in (bytes(20), bytes(40), struct.pack("=IHHIIBBH", 20, 256, 0, 0, 0, socket.AF_INET, 0, 0)):
        assert interpret(program, data) != 0


@pytest.mark.root
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_kernel_decides_so_too(pattern):
    wanted = wanted_protocols(pattern)
    with inside():
        nft("table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }")
        with closing(listener(socket_filter(wanted))) as filtered, closing(listener()) as everything:
            for version in (4, 6):
                make_udp(version)
                make_tcp(version)
                make_ping(version, 7)
            heard, all_of_it = (
                [
                    (flow.l3proto, flow.protonum)
                    for message in collect(sock, 0.1)
                    for flow in MessageDecoder().decode(message)
                ]
                for sock in (filtered, everything)
            )
    assert len(set(all_of_it)) == 6
    assert heard == [pair for pair in all_of_it if pair in wanted]


def test_all_needs_no_filter():
    assert socket_filter(wanted_protocols(None)) is None and wanted_protocols(None) == set(PAIRS)


@pytest.mark.parametrize("pattern", ["(", "*", "a{99999999999}", "nothing-like-it"])
def test_a_bad_expression_is_refused(pattern):
    with pytest.raises(ValueError, match="protocol"):
        wanted_protocols(pattern)
