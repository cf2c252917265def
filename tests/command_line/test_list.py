"""-L: the conntrack table as it is, with the processes that have its sockets."""

import contextlib
import json
import os
import socket
import subprocess

import pytest

from nfct_fast import list_flows
from support.cli import run
from support.flows import DGRAM, INET, INET6, Worker
from support.netns import made as made_netns
from support.netns import use_conntrack
from support.users import as_user

PORT = 7171


def listed(netns, *arguments):
    ended = run(netns, "-L", "--json", *arguments)
    assert (ended.returncode, ended.stderr) == (0, b"")
    return [json.loads(line) for line in ended.stdout.splitlines()]


@contextlib.contextmanager
def connected(family, address):
    with (
        socket.create_server((address, PORT), family=family) as server,
        socket.create_connection((address, PORT)) as client,
        server.accept()[0],
    ):
        yield client.getsockname()[1]


@pytest.mark.parametrize("family, address", [(INET, "127.0.0.1"), (INET6, "::1")])
@pytest.mark.parametrize("attribution", ["auto", "diag", "proc"])
def test_a_connection_has_both_owners(tracked, within, family, address, attribution):
    with within(), connected(family, address) as port, socket.socket(family, DGRAM) as sock:
        sock.connect((address, PORT))
        sock.send(b"x")
        entries = listed(tracked, "--attribution", attribution)
        sent = sock.getsockname()[1]
    tcp, udp = sorted(entries, key=lambda entry: entry["proto"])
    for entry in (tcp, udp):
        assert (entry["type"], entry["direction"]) == ("ENTRY", "local")
        assert (entry["owner"]["pid"], entry["owner"]["match"]) == (os.getpid(), "socket")
        assert entry["netns"] == os.stat(f"/run/netns/{tracked}").st_ino
    assert (tcp["original"]["sport"], udp["original"]["sport"]) == (port, sent)
    assert tcp["peer"]["pid"] == os.getpid() and udp["peer"]["pid"] is None and "recovered" not in tcp


def test_text_and_the_protocols_asked_for(tracked, within):
    with within(), connected(INET, "127.0.0.1") as port:
        options = (("-L",), ("-L", "-p", "ipv4/tcp"), ("--list", "-p", "udp"))
        every, tcp, udp = (run(tracked, "-t", "%Y", *words) for words in options)
    assert every.stdout == tcp.stdout and tcp.stdout.count(b"\n") == 1 and udp.stdout == b""
    assert f"ipv4/tcp 127.0.0.1/{port} > 127.0.0.1/{PORT} :: {os.getpid()} 0:0 ".encode() in tcp.stdout
    assert every.returncode == tcp.returncode == udp.returncode == 0


def test_whoever_took_the_port_of_an_entry_is_not_named(tracked, within):
    def take(worker):
        as_user()
        with socket.socket(INET, DGRAM) as sock:
            sock.bind(("", 6161))
            worker.say("taken")
            worker.hear()

    with within():
        with socket.socket(INET, DGRAM) as sock:
            sock.bind(("", 6161))
            sock.sendto(b"x", ("127.0.0.1", PORT))
        with Worker(take) as thief:
            assert thief.hear() == "taken"
            [entry] = listed(tracked)
    assert entry["owner"]["pid"] is None and entry["owner"]["reason"] == "ambiguous"


def test_what_no_socket_has_any_more(tracked, within):
    with within(), socket.socket(INET, DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", PORT))
        port = sock.getsockname()[1]
        sock.close()
        [entry] = listed(tracked)
    assert (entry["original"]["sport"], entry["owner"]) == (port, {"pid": None, "reason": "closed"})


def test_all_namespaces(tracked, within):
    with within(), connected(INET, "127.0.0.1"), made_netns() as other:
        use_conntrack(other)
        sending = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 7172))"
        subprocess.run(["ip", "netns", "exec", other, "python3", "-c", sending], check=True)
        entries = listed(tracked, "--netns", "all", "-p", "ipv4/(tcp|udp)")
        inode = os.stat(f"/run/netns/{other}").st_ino
    found = {(entry["netns"], entry["original"]["dport"]): entry["owner"]["pid"] for entry in entries}
    assert found[os.stat(f"/run/netns/{tracked}").st_ino, PORT] == os.getpid()
    assert found[inode, 7172] is None


def test_more_entries_than_one_message_holds(tracked, within, flood):
    made = flood(20_000, 0)
    with within(), list_flows(protocol="udp") as table:
        flows = list(table)
        stats = table.stats()
    assert len({(flow.src, flow.sport, flow.dst, flow.dport) for flow in flows}) == len(flows) == made
    assert stats.preexisting == made and stats.lost == stats.recovered == 0


def test_an_empty_table_is_no_failure(netns):
    assert listed(netns) == []


@pytest.mark.parametrize("words", [("-e", "new"), ("--flows",), ("--track",), ("--attribution", "bpf")])
def test_what_it_does_not_go_with(netns, words):
    ended = run(netns, "-L", *words)
    assert ended.returncode == 2 and ended.stdout == b"" and ended.stderr.count(b"\n") == 1


@pytest.mark.root
def test_without_rights(tracked):
    ended = run(tracked, "-L", preexec_fn=as_user)
    assert ended.returncode == 1 and ended.stdout == b"" and ended.stderr.count(b"\n") == 1
    assert b"CAP_NET_ADMIN" in ended.stderr or b"permitted" in ended.stderr
