"""What was recorded is played again: the same flows, owners and lines, without root."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest

from nfct_fast import Conntrack, Lost, RecordingError
from support.cli import COMMAND, SECONDS, Program, until
from support.events import make_ping
from support.flows import Worker, send
from support.overruns import read_until_quiet
from support.stopwatch import Stopwatch
from support.users import as_user

JSON = ("--json",)
TEMPLATE = (
    "-t",
    "%F %T.%f",
    "-f",
    "{ts} {ev.type} {ev.proto} {ev.src}:{ev.sport} {ev.reply_src} {ev.id} {ev.status} {ev.netns} {ev.recovered} "
    "{info.pid} {info.parent} {info.exe_inode} {info.unit} {info.match} {info.reason} {info.cmdline} {peer.comm}",
)


def replay(file, *arguments, **options):
    return subprocess.run([*COMMAND, "--replay", file, *arguments], capture_output=True, timeout=SECONDS, **options)


def traffic():
    """Flows of several programs, with and without an owner, in both families."""
    program = "import socket, sys; s = socket.socket(int(sys.argv[1]), 2); s.sendto(b'x', (sys.argv[2], 9)); print(s)"
    for number in range(3):
        for family, address in ((2, "127.0.0.1"), (10, "::1")):
            subprocess.run([sys.executable, "-c", program, str(family), address, f"é\n{number}"], check=True)
    make_ping(4, 4321)
    with send(7), send(8):
        pass


@pytest.fixture
def recording(tmp_path):
    return tmp_path / "flows"


@pytest.mark.parametrize("form", [(), JSON, TEMPLATE], ids=["default", "json", "template"])
def test_the_same_lines(tracked, within, recording, form):
    with Program(tracked, "--record", recording, "-e", "all", *form) as program:
        with within():
            traffic()
        program.await_lines(9)
        program.await_all_read()
        assert program.end()[0] == 0
    assert program.complaints == []
    played = replay(recording, *form)
    assert played.stdout.decode().splitlines() == program.lines
    assert (played.returncode, played.stderr) == (0, b"")


def test_no_privileges_are_needed(tracked, within, recording):
    with within(), Conntrack(record=recording, protocol="udp", probe=False) as conntrack, send():
        assert until(lambda: conntrack.read(timeout=1))

    def play(worker):
        file = os.open(recording, os.O_RDONLY)  # the folder is root's alone
        os.fchown(file, 65534, 65534)
        as_user()
        with Conntrack(replay=f"/proc/self/fd/{file}", drop_privileges=True) as conntrack:
            worker.say([flow.owner.pid for flow in conntrack])

    with Worker(play) as worker:
        assert worker.hear() == [os.getpid()]


def test_nobody_else_can_read_it(tracked, within, recording):
    before = os.umask(0)
    try:
        with within(), Conntrack(record=recording, probe=False):
            assert stat.S_IMODE(os.stat(recording).st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("options", [dict(redact="hunter."), dict(cmdline=False)])
def test_no_secret_gets_into_the_file(tracked, within, recording, options):
    program = "import socket; s = socket.socket(2, 2); s.sendto(b'x', ('127.0.0.1', 9))"
    with within(), Conntrack(record=recording, protocol="udp", probe=False, **options) as conntrack:
        subprocess.run([sys.executable, "-c", program, "--password", "hunter2"], check=True)
        [live] = until(lambda: conntrack.read(timeout=1))
    with Conntrack(replay=recording) as conntrack:
        [played] = conntrack
    assert live.owner.process.cmdline == played.owner.process.cmdline != (sys.executable, "-c", program)
    assert b"hunter" not in recording.read_bytes() and live.owner == played.owner


@pytest.mark.parametrize("how", ["file", "link", "dangling"])
def test_no_file_is_overwritten(tracked, within, recording, tmp_path, how):
    other = tmp_path / "other"
    if how != "dangling":
        other.write_text("of somebody else")
    recording.symlink_to(other) if how != "file" else recording.write_text("of somebody else")
    with within(), pytest.raises(FileExistsError):
        Conntrack(record=recording, probe=False)
    assert not other.exists() if how == "dangling" else recording.read_text() == "of somebody else"


def test_all_ways_to_read(tracked, within, flood, recording):
    with within(), Conntrack(record=recording, protocol="ipv4/udp", attribution="off", probe=False) as conntrack:
        made = flood(3_000, 0)
        live = []
        until(lambda: live.extend(conntrack.read(timeout=0.1)) or len(live) == made)

    def told(flows):
        return [(flow.time_ns, flow.original, flow.reply, flow.status, flow.id, flow.netns) for flow in flows]

    with Conntrack(replay=recording) as conntrack:
        assert told(conntrack) == told(live)
        assert conntrack.stats().events == made and (conntrack.no_event_reasons, conntrack.degraded) == ((), ())
    with Conntrack(replay=recording) as conntrack:
        some = conntrack.read(limit=100) + [next(conntrack)]
        until(lambda: some.extend(conntrack.read()) or len(some) == made)
        assert told(some) == told(live)
        assert conntrack.read() == [] and list(conntrack) == []
    for arguments, count in ((dict(protocol="tcp"), 0), (dict(events="DESTROY"), 0), (dict(events="NEW"), made)):
        with Conntrack(replay=recording, **arguments) as conntrack:
            assert len(list(conntrack)) == count and conntrack.stats().filtered == made - count


def test_left_before_the_end(tracked, within, flood, recording):
    """More than the ring holds; nothing hangs, and nothing is left open."""
    with within(), Conntrack(record=recording, protocol="ipv4/udp", attribution="off", probe=False) as conntrack:
        made = flood(40_000, 0)
        taken = []
        until(lambda: taken.extend(conntrack.read(timeout=0.1)) or len(taken) == made)
        assert conntrack.stats().lost == 0
    before = len(os.listdir("/proc/self/fd"))
    with Conntrack(replay=recording) as conntrack:
        assert next(conntrack).dport == 1024
        until(lambda: conntrack.stats().max_queued == 32_768, what="a full ring")
    assert conntrack.stats().undelivered + 1 == 32_768
    assert len(os.listdir("/proc/self/fd")) == before


def test_in_real_time(tracked, within, recording):
    with within(), Conntrack(record=recording, protocol="udp", probe=False) as conntrack:
        with send(1):
            time.sleep(0.6)
        with send(2):
            live = []
            until(lambda: live.extend(conntrack.read(timeout=1)) or len(live) == 2)
    for speed, least, most in ((1, 0.55, 5), (100, 0, 0.5)):
        with Conntrack(replay=recording, speed=speed) as conntrack:
            with Stopwatch() as watch:
                assert [flow.dport for flow in conntrack] == [1, 2]
            assert watch.elapsed >= least and watch.seconds < most


def test_losses_are_played_too(tracked, within, flood, recording):
    options = dict(recover=False, rcvbuf=4096, rcvbuf_limit=4096, attribution="off", probe=False, protocol="ipv4/udp")
    with within(), Conntrack(record=recording, on_loss="yield", **options) as conntrack:
        made = flood(20_000, 0)
        live = []
        until(
            lambda: (
                live.extend(conntrack.read(timeout=0.1))
                or sum(item.count if isinstance(item, Lost) else 1 for item in live) == made
            )
        )
    with Conntrack(replay=recording, on_loss="yield") as conntrack:
        played = list(conntrack)
        assert conntrack.lost == conntrack.stats().lost > 0
    assert [item for item in played if isinstance(item, Lost)] == [item for item in live if isinstance(item, Lost)]
    assert len(played) == len(live)


def test_recovered_flows(tracked, within, flood, recording):
    """They came from the conntrack table: there is no message of theirs."""
    options = dict(rcvbuf=4096, rcvbuf_limit=4096, probe=False, protocol="ipv4/udp")
    with within(), Conntrack(record=recording, **options) as conntrack:
        flood(20_000, 0)
        live = read_until_quiet(conntrack)
    with Conntrack(replay=recording) as conntrack:
        played = list(conntrack)

    def told(flows):
        return [
            (flow.time_ns, flow.type, flow.original, flow.reply, flow.status, flow.timeout, flow.id, flow.use,
             flow.mark, flow.recovered, flow.owner.pid, flow.owner.cookie, flow.owner.reason)
            for flow in flows
        ]  # fmt: skip

    assert any(flow.recovered for flow in live) and told(played) == told(live)


def test_a_disk_that_is_full(tracked, within, flood, tmp_path):
    """Events are read on, and what is missing is counted."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], check=True)
    try:
        with within(), Conntrack(record=place / "r", attribution="off", probe=False, protocol="ipv4/udp") as conntrack:
            made = flood(50, 0)
            until(lambda: os.path.getsize(place / "r") > 5_000, what="the beginning of the recording")
            made += flood(5_000, 0, address="10.99.2.1")
            taken = []
            until(lambda: taken.extend(conntrack.read(timeout=0.1)) or len(taken) == made)
            notices = until(conntrack.notices)
        assert ["No space left on device" in notice for notice in notices] == [True]
        played, missing = [], conntrack.stats().unrecorded
        with pytest.raises(RecordingError, match="cut off"), Conntrack(replay=place / "r") as conntrack:
            for flow in conntrack:
                played.append(flow)
        assert 0 < made - missing <= len(played) < made
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_hangs(tracked, flood, faults, recording):
    """Lines are written as ever, and the end comes; what is not recorded is said."""
    with Program(
        tracked, "-p", "ipv4/udp", "--attribution", "off", "--record", recording, env=faults("stuck")
    ) as program:
        made = flood(3_000, 0)
        program.await_lines(made)
        assert program.end()[0] == 0
    assert len(program.lines) == made
    assert program.complaints == [f"nfct-fast: {made} flows written and not recorded"]


def test_what_does_not_go_together(recording):
    for arguments in (dict(track=True), dict(netns="all"), dict(record=recording)):
        with pytest.raises(ValueError, match="do not go with it"):
            Conntrack(replay=recording, **arguments)
    for arguments in (dict(speed=1), dict(speed=0, replay=recording), dict(speed=-1, replay=recording)):
        with pytest.raises(ValueError, match="speed"):
            Conntrack(**arguments)
    assert not recording.exists()


def whole_flows_made(program, within):
    with within():
        traffic()
        program.await_lines(1)  # -e new, so the flows have begun
        for family in ("ipv4", "ipv6"):
            subprocess.run(["conntrack", "-F", "-f", family], check=True, capture_output=True)


@pytest.mark.parametrize("form", [(), JSON, TEMPLATE], ids=["default", "json", "template"])
def test_whole_flows(tracked, within, recording, form):
    """With their outcome, duration and users, and those whose beginning is not remembered."""
    with within(), send(3):
        with Program(tracked, "--record", recording, "--flows", "-e", "new", *form) as program:
            whole_flows_made(program, within)
            program.await_lines(17)
            program.await_all_read()
            assert program.end()[0] == 0
    played = replay(recording, *form)
    assert (played.returncode, played.stderr) == (0, b"")
    assert played.stdout.decode().splitlines() == program.lines
    only = replay(recording, "--flows", *form).stdout.decode().splitlines()
    begun = replay(recording, "-e", "new", *form).stdout.decode().splitlines()
    assert only and begun and sorted(only + begun) == sorted(program.lines)
    if form == JSON:
        ended = [json.loads(line) for line in only]
        assert {line["type"] for line in ended} == {"FLOW"} and any("duration_ns" in line for line in ended)
        assert {"answered", "unanswered"} & {line.get("outcome") for line in ended}
