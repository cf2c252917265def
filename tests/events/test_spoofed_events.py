"""Messages that do not come from the kernel are refused: root of a user namespace can send to our multicast groups."""

import socket
import struct
import subprocess
import time

import pytest

from nfct_fast import Conntrack
from nfct_fast.kernel.netns import Netns
from nfct_fast.namespaces.local_addresses import LocalAddresses
from support.cli import Program, until
from support.events import listener
from support.netns import ip
from support.users import unshared

COUNT = 50
NEW, DESTROY = 1, 3
RULES = "table inet user { chain seen { type filter hook output priority 0; ct state new counter; }; }"


def send_datagrams(count):
    """The source ports of real flows, over loopback."""
    ports = []
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", 9))
            sock.send(b"x")
            ports.append(sock.getsockname()[1])
    return ports


def up():
    ip("link", "set", "lo", "up")
    subprocess.run(["nft", RULES], check=True)


def recorded(group):
    """Return a real event of a flow, as bytes, received in the thread's namespace."""
    sock = listener()
    try:
        [port] = send_datagrams(1)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for message in sock.messages_now():
                if struct.pack(">H", port) in message:
                    return message, struct.pack(">H", port)
            time.sleep(0.01)
    finally:
        sock.close()
    raise AssertionError("no event")


def forge(worker):
    """Multicast forged events among real ones, and say which ports are which."""
    up()
    message, port = recorded(NEW)
    worker.say("ready")
    assert worker.hear() == "go"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
        forged = [20_000 + number for number in range(COUNT)]  # below the ephemeral ports, which the real flows have
        for number in forged:
            sock.sendto(message.replace(port, struct.pack(">H", number)), (0, 1 << NEW - 1))
    real = send_datagrams(COUNT)
    worker.say((forged, real))
    worker.hear()


@pytest.mark.parametrize("family", ["json", "line"])
def test_forged_events_are_counted_and_not_printed(netns, family):
    with unshared(forge) as (worker, _):
        assert worker.hear() == "ready"
        form = ["--json"] if family == "json" else ["-f", "{ev.sport}"]
        with Program(netns, "--netns", str(worker.pid), "--debug", *form) as program:
            worker.say("go")
            forged, real = worker.hear()
            printed = '"sport":{},' if family == "json" else "{}"
            until(
                lambda: all(any(printed.format(port) in line for line in program.lines) for port in real),
                what="the real flows",
            )
            assert not [line for line in program.lines for port in forged if printed.format(port) in line]
            worker.say("end")
            assert program.end()[0] == 0
            assert f"spoofed={COUNT}" in program.complaints[-1]


def test_forged_ends_and_groups_of_several(netns):
    """To all groups at once, and as the end of a flow that lives on."""

    def work(worker):
        up()
        message, port = recorded(NEW)
        worker.say("ready")
        worker.hear()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
            for group in (1, 2, 3):
                for kind in (0, 2):  # IPCTNL_MSG_CT_NEW, _DELETE
                    forged = message[:4] + struct.pack("=BB", kind, 1) + message[6:]
                    sock.sendto(forged.replace(port, struct.pack(">H", 40_001)), (0, 1 << group - 1))
        worker.say(send_datagrams(1))
        worker.hear()

    with unshared(work) as (worker, _):
        assert worker.hear() == "ready"
        with Conntrack(netns=worker.pid, events=("NEW", "UPDATE", "DESTROY"), probe=False) as conntrack:
            worker.say("go")
            [real] = worker.hear()
            flows = []
            until(lambda: flows.extend(conntrack.read(timeout=0.1)) or any(flow.sport == real for flow in flows))
            assert not [flow for flow in flows if 40_001 in (flow.sport, flow.dport)]
            assert conntrack.stats().spoofed == 6
            worker.say("end")


@pytest.mark.root
def test_a_forged_answer_does_not_pass_for_tracking():
    """The probe waits for an event of its own datagram: its ports can be read in /proc/net/udp."""

    def work(worker):
        ip("link", "set", "lo", "up")
        worker.say("ready")
        worker.hear()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
            end = time.monotonic() + 5
            while time.monotonic() < end:
                with open("/proc/net/udp") as table:
                    ports = [int(line.split()[1].split(":")[1], 16) for line in list(table)[1:]]
                for one in ports:
                    for other in ports:
                        sock.sendto(
                            struct.pack("=IHHII", 64, 256, 0, 0, 0)
                            + struct.pack("=HHI", 8, 0, 0)
                            + struct.pack("=HH", 6, 2)
                            + struct.pack(">H", one)
                            + b"\0\0"
                            + struct.pack("=HH", 6, 3)
                            + struct.pack(">H", other)
                            + bytes(16),
                            (0, 1),
                        )
        worker.say("sent")

    with unshared(work) as (worker, _):
        assert worker.hear() == "ready"
        worker.say("go")
        with Conntrack(netns=worker.pid, attribution="off") as conntrack:
            assert any("new flows are not tracked" in line for line in conntrack.no_event_reasons), (
                conntrack.no_event_reasons
            )


@pytest.mark.root
def test_forged_routes_are_not_looked_at():
    """Each would have the addresses read anew."""

    def work(worker):
        ip("link", "set", "lo", "up")
        worker.say("ready")
        worker.hear()
        route = struct.pack("=IHHII", 28, 24, 0, 0, 0) + struct.pack(
            "=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 255, 2, 254, 2, 0
        )
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            for group in (1, 5, 7, 9, 11):  # RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
                sock.sendto(route, (0, 1 << group - 1))
        worker.say("sent")
        worker.hear()
        ip("addr", "add", "10.1.2.3/32", "dev", "lo")
        worker.say("added")
        worker.hear()

    with unshared(work) as (worker, _):
        assert worker.hear() == "ready"
        with Netns(f"/proc/{worker.pid}/ns/net") as space, space.entered():
            addresses = LocalAddresses()
        with addresses:
            addresses.update()
            worker.say("go")
            assert worker.hear() == "sent"
            assert not addresses.update() and addresses.spoofed == 5
            worker.say("go")
            assert worker.hear() == "added"
            assert addresses.update() and "10.1.2.3" in addresses
            worker.say("end")


def test_a_datagram_to_a_socket_alone_is_refused(netns):
    """Which takes no room either: the kernel refuses it, as all our sockets are connected to its port."""
    with Program(netns, "--track"), Netns(f"/run/netns/{netns}") as space, space.entered():
        with open("/proc/thread-self/net/netlink") as table:
            ours = [(int(row[1]), int(row[2])) for row in map(str.split, list(table)[1:]) if row[2] != "0"]
        assert {protocol for protocol, _ in ours} >= {0, 12}
        for protocol, port in ours:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sender:
                with pytest.raises(ConnectionRefusedError):
                    sender.sendto(bytes(20), (port, 0))
