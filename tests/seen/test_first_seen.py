"""What a program has never talked to before is marked, in every form of output, and nobody can hide or foul that."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from nfct_fast.conntrack import Conntrack, list_flows
from nfct_fast.processes import cgroup_filesystem
from support.child import Child
from support.cli import Program, inside, run, until
from support.containers import OUTSIDE, hosts
from support.flows import DGRAM, INET, Worker
from support.netns import inside as entered
from support.socket_notes import unusable
from support.users import CLONE_NEWNS, CLONE_NEWUSER, NOBODY, as_user, own_namespaces
from support.whole_flows import count_entries, end_all

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
SYSTEM_USER, ALICE, BOB = 33, 4321, 5432
NEW = ("destination", "port")
TO = ("127.0.0.9", "7000")


def tell(program, *to, uid=0, **options):
    """Run it once."""
    users = dict(user=uid, group=uid, extra_groups=[]) if uid else {}
    subprocess.run([program, *to], check=True, stdin=subprocess.DEVNULL, capture_output=True, **users, **options)


def marks(conntrack, count):
    """The marks of the next `count` flows, in order."""
    flows = []
    until(lambda: flows.extend(conntrack.read(timeout=0.2)) or len(flows) >= count, what=f"flow {count} of {flows}")
    assert len(flows) == count
    return [flow.first_seen for flow in flows]


def watching(**options):
    return Conntrack(**dict(first_seen=True, track=True, probe=False, filter="dport 7000-7999") | options)


def test_the_first_to_an_address_and_the_first_to_a_port(talk):
    with entered(), watching() as conntrack:
        to = ("127.0.0.9", "7001", "127.0.0.8", "7001", "127.0.0.8", "7000", "::1", "7001", "::1", "7000")
        tell(talk, *TO, *TO, *to)
        assert marks(conntrack, 7) == [NEW, (), ("port",), ("destination",), (), ("destination",), ()]
        tell(talk, *TO, "127.0.0.8", "7001", "::1", "7000")
        assert marks(conntrack, 3) == [(), (), ()]
        stats = conntrack.stats()
    assert (stats.first_seen, stats.seen, stats.seen_forgotten) == (4, 5 + 2, 0)  # two count the marks


def test_every_output_has_the_same_marks(talk, tracked, tmp_path):
    """JSON, lines, objects, columns and filters, all from one recording, and what was written live."""
    recording = tmp_path / "recording"
    with Program(tracked, "--first-seen", "--record", recording, "-p", "udp", "-f", "{ev.dst} {ev.first_seen}") as live:
        until(lambda: any("without a store nothing is remembered" in line for line in live.complaints))
        words = ["--net=/run/netns/" + tracked, talk, *TO, "127.0.0.9", "7001", "127.0.0.8", "7001", *TO]
        subprocess.run(["nsenter", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)
        live.await_lines(4)
        assert live.end()[0] == 0
    expected = [NEW, ("port",), ("destination",), ()]
    assert [line.split()[1] for line in live.lines] == ["destination,port", "port", "destination", "-"]
    with Conntrack(replay=recording) as conntrack:
        flows = list(conntrack)
    assert [flow.first_seen for flow in flows] == expected
    assert [tuple(json.loads(flow.to_json()).get("first_seen", ())) for flow in flows] == expected
    assert ["first_seen" in flow.to_json() for flow in flows] == [True, True, True, False]
    assert flows[0] != flows[3]
    with Conntrack(replay=recording) as conntrack:
        columns = [row["first_seen"] for batch in conntrack.batches() for row in batch.to_dicts()]
    assert columns == ["destination,port", "port", "destination", None]
    replayed = run(tracked, "--replay", recording, "--json").stdout.splitlines()
    assert [tuple(json.loads(line).get("first_seen", ())) for line in replayed] == expected
    replayed = run(tracked, "--replay", recording, "--schema", "ecs").stdout.splitlines()
    assert [tuple(json.loads(line)["nfct"].get("first_seen", ())) for line in replayed] == expected
    for words, count in (("any", 3), ("destination", 2), ("port", 2), ("destination,port", 3), ("roaming", 0)):
        with Conntrack(replay=recording, filter=f"first_seen {words}") as conntrack:
            assert len(list(conntrack)) == count, words
    with Conntrack(replay=recording, filter="not first_seen any") as conntrack:
        assert len(list(conntrack)) == 1


def test_a_program_is_a_user_and_a_file(talk, tmp_path):
    with entered(), watching() as conntrack:
        tell(talk, *TO)
        tell(talk, *TO, uid=ALICE)
        tell(talk, *TO)
        tell(talk, *TO, uid=ALICE)
        assert marks(conntrack, 4) == [NEW, NEW, (), ()]
        other = talk.with_name("other")
        shutil.copy(talk, other)
        tell(other, *TO)
        assert marks(conntrack, 1) == [NEW]
        # An update of the program, while it runs and afterwards.
        with Child([other, *TO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
            assert running.stdout.readline() == b"sent\n"
            os.replace(shutil.copy(talk, talk.with_name("next")), other)
            running.stdin.write(b"again\n")
            running.stdin.flush()
            assert running.stdout.readline() == b"sent\n"
        tell(other, *TO)
        assert marks(conntrack, 3) == [(), (), ()]


def test_who_shows_a_path_that_is_not_theirs_is_still_themselves(talk):
    """Root of a user and mount namespace can have any file at any path: it is another user's program."""

    def work(worker):
        as_user(NOBODY)
        own_namespaces(CLONE_NEWUSER | CLONE_NEWNS)
        subprocess.run(["mount", "--bind", mask, talk], check=True)
        tell(talk, *TO)
        worker.say(os.stat(talk).st_ino)

    mask = talk.with_name("mask")
    shutil.copy(talk, mask)
    with entered(), watching() as conntrack:
        tell(talk, *TO)
        assert marks(conntrack, 1) == [NEW]
        try:
            with Worker(work) as worker:
                assert worker.hear() == mask.stat().st_ino
        except EOFError:
            pytest.skip("no user namespaces for other users")
        flow = conntrack.read(timeout=5)[0]
        assert flow.owner.process.exe == str(talk) and flow.owner.uid == NOBODY
        assert flow.first_seen == NEW
        tell(talk, *TO)
        assert marks(conntrack, 1) == [()]


@pytest.fixture
def service():
    """A function that makes the cgroup of a unit, as systemd does, and returns what a process does to enter it."""
    mount = cgroup_filesystem.find_mount()
    if mount is None:
        pytest.skip("no cgroup2 mount with systemd's names")
    top = Path(os.fsdecode(mount)) / f"nfseen-{os.getpid()}.slice"

    def make(name):
        try:
            (top / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            pytest.skip(f"no cgroup of our own: {error}")
        return lambda: (top / name / "cgroup.procs").write_text("0")

    yield make
    for folder, _, _ in os.walk(top, topdown=False):
        os.rmdir(folder)


def test_a_service_is_something_else_than_its_program_started_by_hand(talk, service):
    with entered(), watching() as conntrack:
        for unit in ("a.service", "a.service", "b.service", "session-3.scope", "session-4.scope", "user@0.service"):
            tell(talk, *TO, preexec_fn=service(unit))
        tell(talk, *TO)
        flows = []
        until(lambda: flows.extend(conntrack.read(timeout=0.2)) or len(flows) >= 7)
    if flows[0].owner.process.unit != "a.service":
        pytest.skip("units are not seen here")
    assert [flow.first_seen for flow in flows] == [NEW, (), NEW, NEW, (), (), ()]


def test_a_container_is_a_world_of_its_own(talk, service):
    one, other = "3f" * 32, "4e" * 32
    with entered(), watching() as conntrack:
        tell(talk, *TO)
        for name in (f"docker-{one}.scope", f"docker-{one}.scope", f"docker-{other}.scope"):
            tell(talk, *TO, preexec_fn=service(name))
        # Containers that a unit starts anew, each time with another id, are that unit.
        for name in (one, other):
            tell(talk, *TO, preexec_fn=service(f"web.service/libpod-payload-{name}"))
        assert marks(conntrack, 6) == [NEW, NEW, (), NEW, NEW, ()]


def test_whoever_calls_is_not_marked(talk):
    """A scan must not fill what is remembered of a server."""
    with (
        hosts(1) as (_, other),
        Conntrack(first_seen=True, track=True, probe=False, filter="udp dport 7000") as conntrack,
        socket.socket(INET, DGRAM) as server,
    ):
        # From an address that nothing here has.
        subprocess.run(inside(other, ["nft", OUTSIDE]), check=True)
        server.bind(("0.0.0.0", 7000))
        subprocess.run(inside(other, [talk, "10.88.1.1", "7000"]), check=True, stdin=subprocess.DEVNULL)
        [flow] = conntrack.read(timeout=5)
        assert (flow.direction, flow.owner.pid, flow.first_seen) == ("in", os.getpid(), ())
        assert conntrack.stats().seen == 0


@pytest.mark.parametrize(
    ("events", "flows", "expected"),
    [
        ("NEW,DESTROY", False, {("NEW", NEW), ("DESTROY", ())}),
        ("DESTROY", False, {("DESTROY", NEW)}),
        ("", True, {("FLOW", NEW)}),
        ("NEW", True, {("NEW", NEW), ("FLOW", ())}),
    ],
)
def test_the_first_record_that_tells_of_it_has_the_mark(talk, events, flows, expected):
    with entered():
        count_entries()
        with watching(events=[one for one in events.split(",") if one], flows=flows) as conntrack:
            tell(talk, *TO)
            found = end_all(conntrack, lambda flow: True, len(expected))
    assert {(flow.type, flow.first_seen) for flow in found} == expected


def test_what_the_filter_refuses_does_not_count_as_seen(talk):
    with entered(), watching(filter="dport 7000-7999 and owner uid 0 and first_seen any") as conntrack:
        tell(talk, *TO, uid=ALICE)
        tell(talk, *TO)
        tell(talk, *TO)
        tell(talk, "127.0.0.9", "7001")
        assert marks(conntrack, 2) == [NEW, ("port",)]
        assert conntrack.stats().filtered == 2


def test_who_talks_to_everybody_is_told_once_and_then_only_their_ports(talk):
    to = [word for i in range(1, 301) for word in (f"127.7.{i // 200}.{i % 200 + 1}", "7000")]
    with entered(), watching() as conntrack:
        tell(talk, *to, uid=ALICE)
        found = marks(conntrack, 300)
        assert found[0] == NEW and set(found[1:255]) == {("destination",)}
        assert found[255] == ("destination", "roaming") and set(found[256:]) == {()}
        tell(talk, *to[:4], "127.8.0.1", "7001", uid=ALICE)
        assert marks(conntrack, 3) == [(), (), ("port",)]
        # Others are not concerned, nor is the same user's other program.
        tell(talk, *TO)
        assert marks(conntrack, 1) == [NEW]


def test_who_tries_all_ports_is_told_once(talk):
    to = [word for i in range(300) for word in ("127.0.0.9", str(7000 + i))]
    with entered(), watching() as conntrack:
        tell(talk, *to, uid=ALICE)
        found = marks(conntrack, 300)
        assert found[255] == ("port", "scanning") and set(found[256:]) == {()}


def test_a_flood_of_programs_and_addresses_has_nobody_else_forgotten(talk):
    """A user makes programs that talk to as many addresses as they may, until all room is used."""
    copies = [talk.with_name(f"copy{i}") for i in range(8)]
    for copy in copies:
        shutil.copy(talk, copy)
    mine = [word for i in range(20) for word in (f"127.9.0.{i + 1}", "7000")]
    with entered(), watching(first_seen=1024, filter=f"dport 7000 and uid {ALICE},{BOB},0") as conntrack:
        tell(talk, *mine)
        tell(talk, *mine, uid=BOB)
        marks(conntrack, 40)
        for number, copy in enumerate(copies):
            to = [word for i in range(200) for word in (f"127.{10 + number}.0.{i + 1}", "7000")]
            tell(copy, *to, uid=ALICE)
            assert set(marks(conntrack, 200)) == {NEW, ("destination",)}
        stats = conntrack.stats()
        assert stats.seen <= 1024 and stats.seen_forgotten >= 600
        tell(talk, *mine)
        tell(talk, *mine, uid=BOB)
        assert set(marks(conntrack, 40)) == {()}
        # What was forgotten is marked again.
        tell(copies[0], *[word for i in range(200) for word in (f"127.10.0.{i + 1}", "7000")], uid=ALICE)
        assert ("destination",) in marks(conntrack, 200)


def test_what_cannot_be_is_refused(tracked):
    for words, text in (
        (["-L", "--first-seen"], b"--list shows what is there now"),
        (["--first-seen", "--attribution", "off"], b"first_seen is about programs"),
        (["first_seen", "any"], b"filter: first_seen needs"),
        (["--first-seen", "first_seen", "never"], b"unknown mark of first_seen 'never'"),
        (["--first-seen", "--first-seen-max", "5"], b"'5' is not a number from 1024"),
    ):
        result = run(tracked, *words)
        assert result.returncode == 2 and text in result.stderr and b"Traceback" not in result.stderr, result.stderr
    with pytest.raises(ValueError, match="first_seen needs"):
        list_flows(filter="first_seen any")
    with pytest.raises(ValueError, match="first_seen does not go with it"):
        Conntrack(replay="none", first_seen=True)
