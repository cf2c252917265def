"""Community IDs are those of the reference implementation, for every protocol, in both directions, and behind NAT."""

import ipaddress
import json
import socket
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfct_fast.conntrack import Conntrack
from nfct_fast.events.community_id import community_id
from support.cli import Program, inside, run, until

communityid = pytest.importorskip("communityid", reason="the reference implementation is not installed")

PORTS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP)
ICMP = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
ADDRESSES = {
    # Few, too, so that both ends are often the same, or differ in one byte only.
    4: st.ip_addresses(v=4) | st.sampled_from([*map(ipaddress.ip_address, ("10.0.0.1", "10.0.0.2", "127.0.0.1"))]),
    6: st.ip_addresses(v=6) | st.sampled_from([*map(ipaddress.ip_address, ("::1", "fe80::1", "fe80::2"))]),
}
PORT = st.integers(0, 65535) | st.sampled_from([0, 80, 443])
BYTE = st.integers(0, 255)


def reference(proto, src, dst, sport, dport, seed):
    if proto not in (*PORTS, *ICMP):
        sport = dport = None
    return communityid.CommunityID(seed).calc(communityid.FlowTuple(proto, src.packed, dst.packed, sport, dport))


@given(st.data(), st.sampled_from([4, 6]), st.integers(0, 65535) | st.just(0), BYTE | st.sampled_from([*PORTS, *ICMP]))
def test_like_the_reference(data, version, seed, proto):
    src, dst = data.draw(ADDRESSES[version]), data.draw(ADDRESSES[version])
    kind = BYTE if proto in ICMP else PORT
    sport, dport = data.draw(kind), data.draw(kind)
    found = community_id(proto, src, dst, sport, dport, seed)
    assert found == reference(proto, src, dst, sport, dport, seed)
    if proto not in ICMP:
        assert found == community_id(proto, dst, src, dport, sport, seed)


@pytest.mark.parametrize("proto", ICMP)
@pytest.mark.parametrize("swapped", [False, True])
def test_every_type_of_icmp(proto, swapped):
    ends = [ipaddress.ip_address(address) for address in ("192.168.0.89", "192.168.0.1")][:: -1 if swapped else 1]
    for type in range(256):
        for code in (0, 3):
            assert community_id(proto, *ends, type, code) == reference(proto, *ends, type, code, 0), (type, code)


def test_the_examples_of_the_specification():
    assert community_id(6, "128.232.110.120", "66.35.250.204", 34855, 80) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
    assert community_id(17, "192.168.1.52", "8.8.8.8", 54585, 53) == "1:d/FP5EW3wiY1vCndhwleRRKHowQ="


def test_bad_arguments():
    for arguments in ((6, "10.0.0.1", "::1"), (256, "10.0.0.1", "10.0.0.2"), (1, "10.0.0.1", "10.0.0.2", 256)):
        with pytest.raises(ValueError):
            community_id(*arguments)
    for seed in (-1, 65536, True):
        with pytest.raises(ValueError, match="seed"):
            Conntrack(community_id=seed)


NAT = (
    "table ip n { chain o { type nat hook output priority -100;"
    " ip daddr 10.1.1.1 udp dport 53 dnat to 127.0.0.1:5353; };"
    " chain p { type nat hook postrouting priority 100; oif lo udp dport 5353 snat to 127.0.0.7:7777; }; }"
)


@pytest.fixture
def translated(tracked):
    subprocess.run(inside(tracked, ["nft", NAT]), check=True)
    subprocess.run(["ip", "-n", tracked, "route", "add", "10.1.1.1", "dev", "lo"], check=True)
    return tracked


def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 4040))
        for target in (("10.1.1.1", 53), ("127.0.0.1", 9)):
            sock.sendto(b"x", target)


INNER = community_id(17, "127.0.0.1", "10.1.1.1", 4040, 53)
OUTER = community_id(17, "127.0.0.7", "127.0.0.1", 7777, 5353)
PLAIN = community_id(17, "127.0.0.1", "127.0.0.1", 4040, 9)


def test_both_ids_of_a_flow_behind_nat(translated, within):
    with within(), Conntrack(protocol="udp", probe=False) as conntrack:
        send()
        flows = []
        until(lambda: flows.extend(conntrack.read(timeout=1)) or len(flows) == 2)
    assert [(flow.community_id, flow.community_id_nat) for flow in flows] == [(INNER, OUTER), (PLAIN, None)]


def own_lines(program):
    """Those of send(); others are of programs that look at the start whether events come."""
    return [line for line in program.lines if line.startswith("4040 ") or '"sport":4040' in line]


def test_the_program_tells_them_only_when_asked(translated, within):
    template = "{ev.sport} {ev.community_id} {ev.community_id_nat}"
    with (
        Program(translated, "-pudp", "--json") as silent,
        Program(translated, "-pudp", "--json", "--community-id") as telling,
        Program(translated, "-pudp", "--json", "--community-id", "7") as seeded,
        Program(translated, "-pudp", "-f", template) as lines,
    ):
        with within():
            send()
        programs = silent, telling, seeded, lines
        until(lambda: all(len(own_lines(program)) == 2 for program in programs))
        for program in programs:
            program.end()
    assert not any('"community_id":' in line for line in silent.lines)
    records = [json.loads(line) for line in own_lines(telling)]
    assert [record["community_id"] for record in records] == [INNER, PLAIN]
    assert [record.get("community_id_nat") for record in records] == [OUTER, None]
    assert json.loads(own_lines(seeded)[1])["community_id"] == community_id(
        17, "127.0.0.1", "127.0.0.1", 4040, 9, seed=7
    )
    assert own_lines(lines) == [f"4040 {INNER} {OUTER}", f"4040 {PLAIN} -"]


def test_a_bad_seed_is_one_line(netns):
    result = run(netns, "--community-id", "x")
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1 and b"65535" in result.stderr
