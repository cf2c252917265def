"""Conntrack messages as the kernel sends them: recorded now in the thread's namespace, or loaded from a file.

`python tests/support/events.py`, run as root with the package on the path, writes the file.
"""

import json
import socket
import struct
import subprocess
import time
from contextlib import closing

import pytest

from nfct_fast.kernel.netlink import NetlinkSocket
from support.netns import inside
from support.paths import SUPPORT

SAVED = SUPPORT / "recorded_events.json"
NEW, UPDATE, DESTROY = "NEW", "UPDATE", "DESTROY"
FAMILIES = {4: (socket.AF_INET, "127.0.0.1"), 6: (socket.AF_INET6, "::1")}


def listener(program=None):
    sock = NetlinkSocket(12, 64)
    sock.set_receive_buffer(1 << 20)
    if program is not None:
        sock.attach_filter(program)
    for group in (1, 2, 3):
        sock.join(group)
    return sock


def collect(sock, seconds=0.3):
    """Return the messages received until none has come for `seconds`."""
    messages, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        if more := sock.messages_now():
            messages += more
            deadline = time.monotonic() + seconds
        else:
            time.sleep(0.01)
    return messages


def make_udp(version):
    family, address = FAMILIES[version]
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((address, 0))
        client.connect(server.getsockname()[:2])
        client.send(b"x")
        server.sendto(b"yy", client.getsockname()[:2])
        return client.getsockname()[1], server.getsockname()[1]


def make_tcp(version):
    family, address = FAMILIES[version]
    with socket.create_server((address, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            server.accept()[0].close()
            return client.getsockname()[1], server.getsockname()[1]


def make_ping(version, identifier):
    family, address = FAMILIES[version]
    kind, proto = (8, socket.IPPROTO_ICMP) if version == 4 else (128, socket.IPPROTO_ICMPV6)
    body = struct.pack(">BBHHH", kind, 0, 0, identifier, 1)
    if version == 4:
        total = sum(struct.unpack(">4H", body))
        body = struct.pack(">BBHHH", kind, 0, ~(total + (total >> 16)) & 0xFFFF, identifier, 1)
    with socket.socket(family, socket.SOCK_RAW, proto) as sock:
        sock.sendto(body, (address, 0))


def nft(rules):
    subprocess.run(["nft", rules], check=True)


def record():
    """Events of every type, family and usual protocol: (messages, {what: (sport, dport)})."""
    for name in ("acct", "timestamp"):
        with open(f"/proc/sys/net/netfilter/nf_conntrack_{name}", "w") as file:
            file.write("1")
    nft(
        "table inet t { chain early { type filter hook output priority -300; udp dport 5005 ct zone set 7; };"
        " chain c { type filter hook output priority 0; ct state new counter; udp dport 5006 ct mark set 0xdeadbeef;"
        " udp dport 5006 ct label set 3; }; }"
    )
    made = {}
    with closing(listener()) as sock:
        for version in (4, 6):
            made[f"ipv{version}/udp"] = make_udp(version)
            made[f"ipv{version}/tcp"] = make_tcp(version)
            make_ping(version, 4321)
            family, address = FAMILIES[version]
            for port in (5005, 5006, 5007):
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.sendto(b"x", (address, port))
                    made[f"ipv{version}", port] = client.getsockname()[1], port
        messages = collect(sock)
        subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
        messages += collect(sock)
    return messages, made


def save(recording):
    messages, made = recording
    SAVED.write_text(
        json.dumps({"messages": [message.hex() for message in messages], "made": [*made.items()]}, indent=0) + "\n"
    )


def saved():
    """Load a saved recording, in the form of record(). Needs no root."""
    content = json.loads(SAVED.read_text())
    made = {name if isinstance(name, str) else tuple(name): tuple(ports) for name, ports in content["made"]}
    return [bytes.fromhex(message) for message in content["messages"]], made


@pytest.fixture(scope="module", params=["saved", pytest.param("fresh", marks=pytest.mark.root)])
def recorded(request):
    """Events of every type, family and usual protocol: (messages, {what: (sport, dport)})."""
    if request.param == "saved":
        return saved()
    with inside():
        return record()


if __name__ == "__main__":
    with inside():
        save(record())
