"""Packets whose sender made up the source address, in a container or on the host, and sockets of kernel threads."""

import json
import socket
import struct
import subprocess

import pytest

from support.attacks import (
    ATTACKER,
    IP_FREEBIND,
    IP_TRANSPARENT,
    IPPROTO_MPTCP,
    IPV6_FREEBIND,
    PORT,
    VICTIM,
    by_user,
    done,
    heard,
    serve,
)
from support.containers import bridge, container, hosts, in_user_namespace, within
from support.flows import DGRAM, INET, INET6, STREAM, Worker, collect_count, listening
from support.netns import inside as entered
from support.netns import ip
from support.socket_notes import unusable
from support.users import as_user

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]


# ---- 3: another container's address ----


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    return ~(total + (total >> 16)) & 0xFFFF


def packet(proto, src, dst, sport, dport):
    if proto == 17:
        body = struct.pack(">4H", sport, dport, 8, 0)
    elif proto == 6:
        body = struct.pack(">2H2I4H", sport, dport, 1, 0, 0x5002, 1024, 0, 0)
        pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack(">2H", 6, 20)
        body = body[:16] + struct.pack(">H", checksum(pseudo + body)) + body[18:]
    else:
        body = struct.pack(">BBHHH", 8, 0, checksum(struct.pack(">BBHHH", 8, 0, 0, sport, 1)), sport, 1)
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst)
    )
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def mac(device, netns):
    shown = subprocess.run(
        ["ip", "-n", netns, "-j", "link", "show", device], check=True, capture_output=True, text=True
    ).stdout
    return bytes.fromhex(json.loads(shown)[0]["address"].replace(":", ""))


@pytest.mark.parametrize("with_bridge", [False, True])
@pytest.mark.parametrize("how", ["raw", "packet"])
@pytest.mark.parametrize("proto", [17, 6, 1])
def test_another_containers_address(how, proto, with_bridge):
    """The other serves that port on all addresses, or has a ping socket with that identifier."""
    with hosts(1) as (host, world), container(ATTACKER) as user, container(VICTIM) as other:
        name = bridge(host) if with_bridge else None
        user.wire(host, 2, name)
        other.wire(host, 3, name)
        if not with_bridge:
            ip("route", "add", "10.88.9.3/32", "dev", "u3", netns=host)
        router = mac(name or "u2", host)

        def victim(worker):
            if proto == 1:
                with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
                    file.write("0 0")
                sock = socket.socket(INET, DGRAM, socket.IPPROTO_ICMP)
                sock.bind(("0.0.0.0", PORT))
            else:
                sock = serve(INET, "0.0.0.0", PORT, kind=STREAM if proto == 6 else DGRAM)(worker)
            worker.say("done")
            worker.hear()

        def forge(worker):
            data = packet(proto, "10.88.9.3", "10.88.1.2", PORT, 7000)
            if how == "raw":
                sock = socket.socket(INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
                sock.sendto(data, ("10.88.1.2", 0))
            else:
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
                sock.sendto(data, ("eth0", 0x0800, 0, 0, router))
            worker.say("done")
            worker.hear()

        with (
            done(Worker(in_user_namespace(other.pid, victim))),
            listening() as conntrack,
            done(Worker(in_user_namespace(user.pid, forge))),
        ):
            flow = heard(conntrack, lambda flow: flow.src == "10.88.9.3")
        assert flow.owner.pid is None and flow.owner.reason, flow.owner


# ---- 6: an address that nobody has, or a container ----

FREE4, FREE6 = (socket.IPPROTO_IP, IP_FREEBIND), (socket.IPPROTO_IPV6, IPV6_FREEBIND)
CLEAR4, CLEAR6 = (socket.IPPROTO_IP, IP_TRANSPARENT), (socket.IPPROTO_IPV6, 75)


@pytest.mark.parametrize("in_container", [False, True])
@pytest.mark.parametrize("option, uid", [(FREE6, ATTACKER), (CLEAR6, 0), (CLEAR4, 0)])
@pytest.mark.parametrize("connected", [False, True])
def test_a_source_that_is_not_the_hosts(option, uid, in_container, connected):
    """in_container: another namespace has the address, and a server of that port there."""
    family = INET if option[0] == socket.IPPROTO_IP else INET6
    source = (
        ("10.88.1.2" if family == INET else "fd88:1::2")
        if in_container
        else "203.0.113.5"
        if family == INET
        else "2001:db8::5"
    )
    peer = "10.88.2.2" if family == INET else "fd88:2::2"

    def forge(worker):
        sock = serve(family, source, PORT, option)(worker)
        if connected:
            sock.connect((peer, 7000))
            sock.send(b"x")
        else:
            sock.sendto(b"x", (peer, 7000))
        return sock

    with hosts(2) as (host, one, _):
        server = Worker(
            within(
                one,
                lambda worker: [
                    as_user(VICTIM),
                    serve(family, "::" if family == INET6 else "0.0.0.0", PORT)(worker),
                    worker.say("done"),
                    worker.hear(),
                ],
            )
        )
        with done(server), listening() as conntrack, by_user(uid, forge) as attacker:
            assert attacker.hear() == "done"
            flow = heard(conntrack, lambda flow: flow.dport == 7000)
            assert flow.src == source and flow.owner.pid != server.pid
            assert (flow.owner.pid, flow.owner.uid) == (attacker.pid, uid), (flow, flow.owner)


# ---- 7: MPTCP ----


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.9.9.1", "10.9.9.2"], ["fd09::1", "fd09::2"]], ids=lambda each: each[-1]
)
def test_mptcp_names_its_maker(addresses):
    family = INET6 if ":" in addresses[0] else INET
    with entered() as name:
        for address in addresses if len(addresses) > 1 else []:
            ip("addr", "add", address, "dev", "lo", *(["nodad"] if family == INET6 else []), netns=name)
        if len(addresses) > 1:
            subprocess.run(["ip", "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2"], check=True)
            subprocess.run(["ip", "mptcp", "endpoint", "add", addresses[1], "dev", "lo", "subflow"], check=True)

        def server(worker):
            try:
                sock = socket.socket(family, STREAM, IPPROTO_MPTCP)
            except OSError:
                return None
            sock.bind((addresses[0], PORT))
            sock.listen()
            worker.say("done")
            return sock.accept()[0].recv(100), worker.hear()

        def client(worker):
            sock = socket.socket(family, STREAM, IPPROTO_MPTCP)
            sock.connect((addresses[0], PORT))
            sock.send(b"x")
            return sock

        with listening() as conntrack, Worker(server) as serving:
            assert serving.hear() == "done"
            with done(asking := by_user(ATTACKER, client)):
                flows = collect_count(conntrack, lambda flow: flow.dport == PORT, len(addresses))
                assert [flow.src for flow in flows] == addresses
                for flow in flows:  # all but the first are connected by a kernel thread
                    assert (flow.owner.pid, flow.owner.uid, flow.owner.match) == (asking.pid, ATTACKER, "bpf"), (
                        flow,
                        flow.owner,
                    )
                    assert flow.peer.pid in (serving.pid, None)
