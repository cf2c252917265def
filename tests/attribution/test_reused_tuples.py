"""All users of a tuple while its conntrack entry lives: the second user of a UDP entry causes no event."""

import contextlib
import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from nfct_fast.conntrack import Conntrack
from nfct_fast.output.json_lines import JsonLines
from nfct_fast.output.sink import Sink
from nfct_fast.output.writer import Writer
from support.cli import until
from support.flows import Worker, collect_count
from support.netns import inside as entered
from support.socket_notes import unusable
from support.users import as_user, unshared

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
INET, INET6, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM
FIRST, SECOND, THIRD, PORT, PEER = 65534, 4321, 4322, 6161, 7171
LOOPBACK = {INET: "127.0.0.1", INET6: "::1"}


def set_sysctl(name, value):
    Path("/proc/sys/net/netfilter", name).write_text(f"{value}\n")


@contextlib.contextmanager
def watched(*, timestamp=True, events=("UPDATE", "DESTROY")):
    """A Conntrack of a new namespace, whose entries are there for ten minutes unless they are deleted."""
    with entered():
        set_sysctl("nf_conntrack_timestamp", int(timestamp))
        set_sysctl("nf_conntrack_udp_timeout", 600)
        with Conntrack(track=True, probe=False, events=events) as conntrack:
            assert conntrack.degraded == ()
            yield conntrack


def delete(family=INET):
    subprocess.run(
        ["conntrack", "-D", "-f", "ipv6" if family == INET6 else "ipv4", "-p", "udp", "--dport", str(PEER)],
        check=True,
        capture_output=True,
    )


def used_by(uid, family=INET, *, connected=False, source=None, go_on=False):
    """One use of the tuple by a process of that user: its pid. go_on: the Worker, which sends again when told to."""

    def run(worker):
        if uid:
            as_user(uid)
        with socket.socket(family, DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((source or LOOPBACK[family] if connected or source else "", PORT))
            if connected:
                sock.connect((LOOPBACK[family], PEER))
                with contextlib.suppress(ConnectionRefusedError):
                    sock.send(b"x")
            else:
                sock.sendto(b"x", (LOOPBACK[family], PEER))
            worker.say("sent")
            while go_on and worker.hear() == "again":
                sock.sendto(b"x", (LOOPBACK[family], PEER))
                worker.say("sent")

    worker = Worker(run)
    worker.__enter__()
    assert worker.hear() == "sent"
    if go_on:
        return worker
    worker.__exit__(None, None, None)
    return worker.pid


def destroyed(conntrack, kind="DESTROY"):
    flows = collect_count(conntrack, lambda flow: flow.type == kind and flow.dport == PEER, 1)
    assert flows, f"no {kind} was received"
    return flows[0]


def users(owner):
    return [(process.pid, process.uid) for process in owner.processes]


@pytest.mark.parametrize("connected", [False, True], ids=["sendto", "connect"])
@pytest.mark.parametrize("family", [INET, INET6], ids=["ipv4", "ipv6"])
def test_all_who_used_a_live_entry_are_named_at_its_end(family, connected):
    with watched() as conntrack:
        used = [(used_by(uid, family, connected=connected), uid) for uid in (FIRST, SECOND, THIRD)]
        delete(family)
        owner = destroyed(conntrack).owner
    assert users(owner)[::-1] == used


def test_who_used_the_tuple_before_the_entry_is_not_among_them():
    with watched() as conntrack:
        used_by(FIRST)
        delete()
        assert users(destroyed(conntrack).owner)[0][1] == FIRST
        time.sleep(0.2)
        used = [(used_by(uid), uid) for uid in (SECOND, THIRD)]
        delete()
        assert users(destroyed(conntrack).owner)[::-1] == used


def test_who_sent_on_the_same_socket_before_and_after_is_among_them():
    """That socket is not noted again."""
    with watched() as conntrack:
        with contextlib.ExitStack() as stack:
            worker = used_by(FIRST, go_on=True)
            stack.push(worker.__exit__)
            stack.callback(worker.say, "end")
            delete()
            destroyed(conntrack)
            time.sleep(0.2)
            worker.say("again")
            assert worker.hear() == "sent"
            time.sleep(0.2)
            second = used_by(SECOND, source="0.0.0.0")
        delete()
        assert users(destroyed(conntrack).owner) == [(second, SECOND), (worker.pid, FIRST)]


def test_without_a_start_it_is_as_far_as_the_notes_reach():
    with watched(timestamp=False) as conntrack:
        used = [(used_by(FIRST), FIRST)]
        delete()
        destroyed(conntrack)
        used += [(used_by(uid), uid) for uid in (SECOND, THIRD)]
        delete()
        assert users(destroyed(conntrack).owner)[::-1] == used


def test_updates_name_them_too():
    """The first answer is one: the entry has seen a reply."""
    with watched() as conntrack, socket.socket(INET, DGRAM) as server:
        server.bind((LOOPBACK[INET], PEER))
        used = [(used_by(uid), uid) for uid in (FIRST, SECOND)]
        server.sendto(b"x", (LOOPBACK[INET], PORT))
        assert users(destroyed(conntrack, "UPDATE").owner)[::-1] == used


def test_one_who_used_it_often_is_there_once():
    with watched() as conntrack:
        first = used_by(FIRST, go_on=True)
        try:
            for _ in range(20):
                first.say("again")
                assert first.hear() == "sent"
            used = [(first.pid, FIRST)]
        finally:
            first.say("end")
            first.__exit__(None, None, None)
        used.append((used_by(SECOND), SECOND))
        delete()
        assert users(destroyed(conntrack).owner)[::-1] == used


def test_a_new_flow_has_its_sender_alone():
    with watched(events=("NEW", "DESTROY")) as conntrack:
        pid = used_by(FIRST)
        flow = destroyed(conntrack, "NEW")
        assert users(flow.owner) == [(pid, FIRST)]
        second = used_by(SECOND)
        time.sleep(0.2)  # a use up to 0.1 s before events were last received could be theirs, too
        delete()
        destroyed(conntrack)
        third = used_by(THIRD)
        flow = destroyed(conntrack, "NEW")
        assert users(flow.owner) == [(third, THIRD)] and second != third


@pytest.mark.parametrize("same_addresses", [True, False])
def test_another_namespace_has_users_of_its_own(same_addresses):
    """Root of a user namespace uses the same tuple in a namespace of its own."""

    def elsewhere(worker):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        address = "127.0.0.1" if same_addresses else "127.0.0.2"
        with socket.socket(INET, DGRAM) as sock:
            sock.bind((address, PORT))
            sock.sendto(b"x", ("127.0.0.1", PEER))
        worker.say("sent")
        worker.hear()

    with watched() as conntrack, unshared(elsewhere, THIRD) as (worker, _):
        used = [(used_by(uid), uid) for uid in (FIRST, SECOND)]
        assert worker.hear() == "sent"
        delete()
        assert users(destroyed(conntrack).owner)[::-1] == used
        worker.say("end")


def test_at_most_eight_and_the_latest():
    with watched() as conntrack:
        used = [(used_by(5000 + number), 5000 + number) for number in range(12)]
        delete()
        found = users(destroyed(conntrack).owner)[::-1]
    assert 4 <= len(found) <= 8 and found == used[-len(found) :]


def test_json(tmp_path):
    with watched(events=("NEW", "DESTROY")) as conntrack, open(tmp_path / "lines", "w+b") as out:
        pids = [used_by(FIRST), used_by(SECOND)]
        delete()
        writer = Writer(JsonLines(), Sink(out.fileno()))
        until(lambda: conntrack._write_to(writer) and len(Path(out.name).read_bytes().splitlines()) >= 2)
        new, end = [json.loads(line) for line in Path(out.name).read_bytes().splitlines()]
    assert new["type"] == "NEW" and "users" not in new["owner"]
    assert end["type"] == "DESTROY" and end["owner"]["match"] in ("bpf", "socket") and "others" not in end["owner"]
    assert [(user["pid"], user["uid"], user["gid"]) for user in end["owner"]["users"]] == [
        (pids[1], SECOND, SECOND),
        (pids[0], FIRST, FIRST),
    ]
    assert all(user["start_ns"] > 0 and user["comm"] for user in end["owner"]["users"])
