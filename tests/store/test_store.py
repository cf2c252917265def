"""--store: what is written is kept, by a process of its own that may do nothing else, whatever happens to it."""

import contextlib
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nfct_fast import Conntrack
from nfct_fast.store.schema import store_files
from nfct_fast.store.store_error import StoreError
from support.cli import AS_NOBODY, Program, run, until
from support.flows import send
from support.store_checks import check_integrity, played, query, store_pid
from support.store_kill import kill_once

OPTIONS = ("-p", "udp", *AS_NOBODY)
SENDER = """
import socket, sys, time
s = socket.socket(2, 2)
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    s.sendto(b"x", ("127.0.0.1", port))
"""


def make_flows(within, first, last):
    with within():
        subprocess.run([sys.executable, "-c", SENDER, str(first), str(last)], check=True)


def stored_ports(store):
    return [port for [port] in query(store, "SELECT dport FROM flow ORDER BY id")]


def test_what_is_written_is_kept(tracked, within, store):
    """Whole flows and others, with their processes; every line can be had again."""
    with Program(tracked, *OPTIONS, "--store", store, "--flows", "-e", "new", "--json") as program:
        make_flows(within, 1000, 1050)
        program.await_lines(50)
        with within():
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
        program.await_lines(100)
        status = os.stat(store)
        assert stat.S_IMODE(status.st_mode) == 0o700 and pwd.getpwuid(status.st_uid).pw_name == "nobody"
        until(lambda: len(query(store, "SELECT 1 FROM flow")) == 100, what="100 rows, while it is written")
        assert {stat.S_IMODE(path.stat().st_mode) for path in store.iterdir()} == {0o600}
        assert program.end()[0] == 0
    assert {path.name for path in store.iterdir()} == {"lock", os.path.basename(store_files(store)[0].path)}
    flows, lost = played(store)
    assert flows == [json.loads(line) for line in program.lines] and lost == 0
    assert {flow["type"] for flow in flows} == {"NEW", "FLOW"}
    names = query(store, "SELECT type, comm, cmdline FROM flow JOIN process ON process.id = owner")
    assert {kind for kind, _, _ in names} == {"NEW", "FLOW"} and all(SENDER[:20] in line for _, _, line in names)


def test_the_process_can_do_nothing_else(tracked, store):
    with Program(tracked, *OPTIONS, "--store", store) as program:
        lines = Path(f"/proc/{store_pid(program)}/status").read_text().splitlines()
        status = dict(line.split(":\t") for line in lines if ":\t" in line)
        assert status["Uid"].split() == ["65534"] * 4 and int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        names = sorted(os.readlink(f"/proc/{store_pid(program)}/fd/{fd}") for fd in range(5))
        assert [name.partition(":")[0] for name in names] == ["/dev/null"] * 3 + ["pipe", "socket"]


CONFINED = """
import os, sys, sqlite3
from nfct_fast.rights import Rights
where, outside = sys.argv[1:]
reasons = Rights(user=(65534, 65534), filter_calls=True, use_helpers=True).confine(where)
inside = os.path.join(where, "a")
os.close(os.open(inside, os.O_CREAT | os.O_RDWR, 0o600))
os.rename(inside, inside + "b")
os.unlink(inside + "b")
tried = {
    "outside": lambda: os.open(os.path.join(outside, "x"), os.O_CREAT | os.O_RDWR),
    "read": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "link": lambda: os.symlink("/etc", inside),
    "folder": lambda: os.mkdir(inside),
    "socket": lambda: __import__("socket").socket(),
    "program": lambda: os.execv("/bin/true", ["true"]),
    "chown": lambda: os.chown(where, 0, 0),
}
for name, step in tried.items():
    try:
        step()
        print("could", name)
    except OSError:
        pass
print("done", reasons)
"""


@pytest.mark.root
def test_the_confinement(store):
    store.mkdir(mode=0o700)
    os.chown(store, 65534, 65534)
    outside = store.parent / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    command = [sys.executable, "-c", CONFINED, store, outside]
    ended = subprocess.run(command, capture_output=True, text=True)
    if "no Landlock" in ended.stdout:
        pytest.skip("this kernel has no Landlock")
    assert ended.stdout == "done []\n", ended.stdout + ended.stderr


def test_it_goes_on_in_the_same_hour(tracked, within, store):
    ports = []
    for number in range(3):
        with Program(tracked, *OPTIONS, "--store", store) as program:
            first = 2000 + 100 * number
            make_flows(within, first, first + 30)
            ports += range(first, first + 30)
            program.await_lines(30)
            assert program.end()[0] == 0 and program.complaints == []
    assert stored_ports(store) == ports
    files = store_files(store)
    if len(files) == 1:  # else the hour has changed meanwhile
        assert query(store, "SELECT DISTINCT boot FROM flow") == [(1,), (2,), (3,)]
    assert len(played(store)[0]) == 90


def test_two_programs(tracked, store):
    with Program(tracked, *OPTIONS, "--store", store) as program:
        ended = run(tracked, *OPTIONS, "--store", store)
        assert ended.returncode == 1 and ended.stdout == b""
        [line] = ended.stderr.decode().splitlines()
        assert re.fullmatch(rf"nfct-fast: {store} is written by another nfct-fast \(process \d+\): .*", line)
        assert f"process {store_pid(program)})" in line
        assert program.end()[0] == 0


@pytest.mark.parametrize("how", ["others", "root's", "link", "file", "closed", "no parent"])
def test_a_directory_that_cannot_be_used(tracked, store, how):
    """One line that says what to do; nothing is left."""
    if how == "others":
        store.mkdir()
        os.chown(store, 65534, 65534)
        store.chmod(0o777)
    elif how == "root's":
        store.mkdir(mode=0o700)
    elif how == "link":
        (store.parent / "real").mkdir(mode=0o700)
        store.symlink_to(store.parent / "real")
    elif how == "file":
        store.write_text("")
    elif how == "closed":
        store.parent.chmod(0o700)
    else:
        store = store / "below"
    expected = {
        "others": "chmod 700",
        "root's": "chown -R nobody: ",
        "link": "symbolic link",
        "file": "no directory",
        "closed": "namei -l",
        "no parent": "is not there",
    }
    before = sorted(store.parent.rglob("*"))
    ended = run(tracked, *OPTIONS, "--store", store)
    [line] = ended.stderr.decode().splitlines()
    assert ended.returncode == 1 and expected[how] in line and str(store) in line
    if how == "closed":
        before.append(store)
    assert sorted(store.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [["--store-days", "3"], ["--store", "x", "--store-size", "5"], ["-L", "--store", "x"]]
)
def test_wrong_arguments(tracked, arguments):
    ended = run(tracked, *arguments)
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1


def test_the_death_of_the_process_ends_the_program(tracked, within, store):
    with Program(tracked, *OPTIONS, "--store", store) as program:
        make_flows(within, 3000, 3010)
        until(lambda: store.exists() and len(query(store, "SELECT 1 FROM flow")) == 10)
        os.kill(store_pid(program), signal.SIGKILL)
        assert program.wait() == 1
    assert program.complaints == [
        f"nfct-fast: nfct-store, which writes the store {store}, has ended: killed by signal 9"
    ]
    check_integrity(store)
    assert stored_ports(store) == list(range(3000, 3010))


def test_the_death_of_the_program_alone(tracked, within, store):
    """What is in the pipe is still stored."""
    with Program(tracked, *OPTIONS, "--store", store) as program:
        pid = store_pid(program)
        make_flows(within, 3000, 3100)
        program.await_lines(100)
        time.sleep(0.5)  # the recorder's thread has handed it over
        program.process.kill()
        until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of nfct-store")
    assert stored_ports(store) == list(range(3000, 3100))


def test_a_stopped_process_stops_nothing(tracked, within, flood, store):
    """As a disk that hangs does: flows are read and written on, those without room are counted, and a row tells."""
    options = ("-p", "udp", *AS_NOBODY, "--attribution", "off", "--debug")
    with Program(tracked, *options, "--store", store) as program:
        pid = store_pid(program)
        os.kill(pid, signal.SIGSTOP)
        made = sum(flood(40_000, 30_000, address=f"10.99.{number}.1") for number in (1, 2, 3))
        program.await_lines(made, 30)
        until(lambda: program.complaints, what="a complaint")
        os.kill(pid, signal.SIGCONT)
        until(lambda: len(query(store, "SELECT 1 FROM flow")) > 30_000, what="what fitted")
        more = flood(100, 0, address="10.99.9.1")
        program.await_lines(made + more)
        until(lambda: query(store, "SELECT sum(events) FROM loss")[0][0], what="a row of what is missing")
        assert program.end()[0] == 0
    assert program.complaints[0].endswith(f"flows are missing in the store {store}: it cannot be written fast enough")
    [unstored] = [int(number) for number in re.findall(r"unstored=(\d+)", "".join(program.complaints))]
    assert f"nfct-fast: {unstored} flows written and not stored" in program.complaints
    [[count]] = query(store, "SELECT count(*) FROM flow")
    [[told]] = query(store, "SELECT sum(events) FROM loss")
    assert count + unstored == made + more and unstored == told > 0
    check_integrity(store)


def test_a_process_that_stays_stopped(tracked, within, store):
    """The program does not wait for it, and says what is not stored yet; it goes on by itself later."""
    with Program(tracked, *OPTIONS, "--store", store) as program:
        pid = store_pid(program)
        os.kill(pid, signal.SIGSTOP)
        try:
            make_flows(within, 3000, 3020)
            program.await_lines(20)
            status, seconds = program.end()
            assert status == 0
            assert program.complaints == [
                f"nfct-fast: 20 flows are not stored yet: process {pid} (nfct-store) goes on with that"
            ]
        finally:
            os.kill(pid, signal.SIGCONT)
    until(lambda: not os.path.exists(f"/proc/{pid}"), what="its end")
    assert stored_ports(store) == list(range(3000, 3020))


def test_a_full_disk(tracked, within, flood, store):
    """It is said once, counted, and over once there is room again."""
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,uid=65534,gid=65534,mode=700", "none", store], check=True)
    options = ("-p", "udp", *AS_NOBODY, "--attribution", "off", "--debug")
    try:
        ballast = store / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        with Program(tracked, *options, "--store", store) as program:
            made = flood(100, 0)
            until(lambda: len(query(store, "SELECT 1 FROM flow")) == 100)
            made += flood(30_000, 30_000, address="10.99.2.1")
            program.await_lines(made)
            until(lambda: any("cannot be written" in line for line in program.complaints), what="a complaint")
            ballast.unlink()
            subprocess.run(["mount", "-o", "remount,size=64m", store], check=True)
            until(lambda: any("written again" in line for line in program.complaints), what="the end of it")
            made += flood(100, 0, address="10.99.9.1")
            program.await_lines(made)
            assert program.end()[0] == 0
        kinds = [line for line in program.complaints if "store" in line and "Stats" not in line]
        assert "is full. It is tried again every second" in kinds[0] and "written again" in kinds[1]
        [unstored] = [int(number) for number in re.findall(r"unstored=(\d+)", "".join(program.complaints))]
        assert unstored > 0 and kinds[2:] == [f"nfct-fast: {unstored} flows written and not stored"]
        [[count]] = query(store, "SELECT count(*) FROM flow")
        [[told]] = query(store, "SELECT sum(events) FROM loss")
        assert count + unstored == made and told == unstored
        check_integrity(store)
    finally:
        subprocess.run(["umount", "-l", store], check=True)


@pytest.mark.parametrize("how", ["text", "middle", "cut", "empty"])
def test_a_damaged_file_is_set_aside(tracked, within, store, how):
    with Program(tracked, *OPTIONS, "--store", store) as program:
        make_flows(within, 4000, 4300)
        program.await_lines(300)
        assert program.end()[0] == 0
    [file] = store_files(store)
    data = bytearray(Path(file.path).read_bytes())
    if how == "middle":
        data[4096 : len(data) // 2] = b"\xee" * (len(data) // 2 - 4096)
    contents = {"text": b"what is this? " * 500, "middle": data, "cut": data[: len(data) // 2], "empty": b""}[how]
    Path(file.path).write_bytes(contents)
    with Program(tracked, *OPTIONS, "--store", store) as program:
        make_flows(within, 5000, 5100)
        program.await_lines(100)
        assert program.end()[0] == 0
    assert stored_ports(store) == list(range(5000, 5100))
    damaged = [path for path in store.iterdir() if path.name.endswith(".damaged")]
    assert (damaged == []) == (how == "empty") == (program.complaints == [])
    assert all("is damaged" in line for line in program.complaints)


def test_a_class(tracked, within, store):
    """The same for programs, which are told of its end by an exception."""
    with within(), Conntrack(store=store, protocol="udp", probe=False, store_days=1, store_size=1 << 24) as conntrack:
        with send(7):
            assert until(lambda: conntrack.read(timeout=1))
        [pid] = [
            one for one in map(int, family_of(os.getpid())) if "nfct-store" in Path(f"/proc/{one}/comm").read_text()
        ]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(StoreError, match="killed by signal 9"):
            for _ in conntrack:
                pass
    with within(), Conntrack(store=store, protocol="udp", probe=False) as conntrack, send(8):
        assert until(lambda: conntrack.read(timeout=1))
    assert conntrack.stats().unstored == 0
    assert stored_ports(store)[-1] == 8
    for wrong in (dict(store_days=1), dict(store=store, replay="x"), dict(store=store, store_size=1)):
        with within(), pytest.raises(ValueError, match="store"):
            Conntrack(**wrong)


def family_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def test_kill_everything(tracked, store):
    """In mid-write, five times, in the same files. `python tests/store_kill` does so fifty times under more load."""
    for number in range(1, 6):
        with Program(tracked, *OPTIONS, "--store", store) as program:
            killed = kill_once(program, store, tracked, f"127.0.0.{number}", 1.2)
        # A second is promised; how much of it a busy machine adds to that is not what is tested here.
        assert killed.made > 100 and killed.age < 4, killed
