"""JSON lines keep to the schema in the README, whatever other processes are called."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from pathlib import Path

import pytest

from support.cli import SECONDS, Program, inside, until
from support.paths import ROOT
from support.wheel import is_source_tree

TYPES = {
    "type": str,
    "time": str,
    "time_ns": int,
    "proto": str,
    "protonum": int,
    "original": dict,
    "reply": dict,
    "direction": str,
    "status": list,
    "mark": int,
    "zone": int,
    "timeout": int,
    "state": int,
    "id": int,
    "use": int,
    "netns": int,
    "original_packets": int,
    "original_bytes": int,
    "reply_packets": int,
    "reply_bytes": int,
    "start_ns": int,
    "stop_ns": int,
    "recovered": bool,
    "owner": dict,
    "peer": dict,
    "lost": int,
    "schema": int,
    "host": str,
    "machine_id": str,
    "boot_id": str,
    "community_id": str,
    "community_id_nat": str,
}
HOST = {"schema", "host", "machine_id", "boot_id"}
ALWAYS = {
    "type",
    "time",
    "time_ns",
    "schema",
    "host",
    "boot_id",
    "proto",
    "protonum",
    "original",
    "mark",
    "zone",
    "owner",
}
OWNER_TYPES = {
    "pid": (int, type(None)),
    "ppid": int,
    "comm": str,
    "exe": str,
    "cmdline": list,
    "cmdline_size": int,
    "cgroup": str,
    "unit": str,
    "user_unit": str,
    "slice": str,
    "container": str,
    "runtime": str,
    "claimed_unit": str,
    "claimed_container": str,
    "claimed_runtime": str,
    "exe_dev": int,
    "exe_inode": int,
    "uid": int,
    "gid": int,
    "inode": int,
    "cookie": int,
    "cgroup_id": int,
    "others": list,
    "match": str,
    "reason": str,
}
OWNER_TYPES |= {"start_ns": int, "ns_pid": int, "login_uid": int, "forked": bool, "ancestors": list}
OWNER_TYPES |= {"start": str, "entity_id": str, "user": str, "group": str}
OWNER_TYPES |= {"exe_size": int, "cgroup_size": int}
OWNER_TYPES |= {
    f"{name}_base64": OWNER_TYPES[name]
    for name in ("comm", "exe", "cmdline", "cgroup", "container", "runtime", "claimed_container", "claimed_runtime")
}
TUPLE_NAMES = ({"src", "dst"}, {"src", "dst", "sport", "dport"}, {"src", "dst", "icmp_type", "icmp_code", "icmp_id"})
HOSTILE = [
    "two\nlines",
    'quote " and \\ backslash',
    "tab\tnul-free\x1b[31m",
    "\u2028\u202e",
    "\U0001f600 é",
    "",
    os.fsdecode(b"\xff\xfe not utf-8 \xc3"),
    '{"type":"LOST"}',
    "\x7f\x01",
    os.fsdecode(b"\xed\xa0\x80"),
    "\uffff",
    "\ufffd",
]
SENDER = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(sys.argv[1])))
sock.sendto(b"x", ("127.0.0.1", 9))
time.sleep(30)
"""


def check(line):
    """The record of a line, held against the schema."""
    record = json.loads(line)
    assert line == line.strip() and set(record) <= set(TYPES)
    for name, value in record.items():
        assert type(value) is TYPES[name], (name, value)
    seconds, fraction = divmod(record["time_ns"], 10**9)
    assert record["time"] == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09}Z"
    if record["type"] == "LOST":
        assert set(record) | HOST == {"type", "time", "time_ns", "lost"} | HOST and record["lost"] > 0
        return record
    assert ALWAYS <= set(record) and record["type"] in ("NEW", "UPDATE", "DESTROY")
    assert re.fullmatch(r"ipv[46]/\S+", record["proto"])
    for name in ("original", "reply"):
        assert set(record.get(name, TUPLE_NAMES[0])) in TUPLE_NAMES or set(record[name]) in TUPLE_NAMES
    for name in ("owner", "peer"):
        for key, value in record.get(name, {}).items():
            assert isinstance(value, OWNER_TYPES[key]), (key, value)
            assert not key.endswith("_base64") or key.removesuffix("_base64") in record[name]
    assert "pid" in record["owner"]
    return record


def records(program):
    return [check(line) for line in list(program.lines)]


def send(netns, sport, *arguments):
    return subprocess.Popen(inside(netns, [sys.executable, "-c", SENDER, str(sport), *arguments]))


def test_every_line_keeps_the_schema(tracked):
    with Program(tracked, "--json") as program:
        subprocess.run(inside(tracked, ["ping", "-c1", "-W1", "127.0.0.1"]), capture_output=True)
        sender = send(tracked, 4001)
        try:
            own = until(lambda: [one for one in records(program) if one["original"].get("sport") == 4001])
        finally:
            sender.kill()
            sender.wait()
        program.end()
    [record] = own
    assert record["original"] == {"src": "127.0.0.1", "dst": "127.0.0.1", "sport": 4001, "dport": 9}
    assert record["reply"] == {"src": "127.0.0.1", "dst": "127.0.0.1", "sport": 9, "dport": 4001}
    assert (record["type"], record["proto"], record["protonum"], record["direction"]) == (
        "NEW",
        "ipv4/udp",
        17,
        "local",
    )
    assert record["netns"] == os.stat(f"/run/netns/{tracked}").st_ino
    assert record["owner"]["pid"] == sender.pid and record["owner"]["ppid"] == os.getpid()
    assert record["owner"]["uid"] == record["owner"]["gid"] == 0
    assert "peer" in record and "reason" in record["peer"]


def exact(owner, name):
    """The bytes of a name, as the README has it."""
    if f"{name}_base64" in owner:
        value = owner[f"{name}_base64"]
        return [b64decode(one) for one in value] if isinstance(value, list) else b64decode(value)
    return [one.encode() for one in owner[name]] if isinstance(owner[name], list) else owner[name].encode()


def replaced(text):
    return re.sub("[\ufffd\uffff]+", "?", text)


@pytest.fixture(scope="module")
def jsonb(tmp_path_factory):
    """A function that has PostgreSQL take lines as jsonb: how many it took."""
    programs = [shutil.which(name) for name in ("initdb", "postgres", "psql", "setpriv")]
    if None in programs:
        pytest.skip("PostgreSQL's initdb, postgres and psql are needed to see what its jsonb takes")
    initdb, postgres, psql, setpriv = programs
    # It does not run as root. Its socket's path has to be short, and in a folder that everyone may enter.
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        folder = Path(top) / "data"
        folder.mkdir(0o700)
        os.chown(folder, 65534, 65534)
        user = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
        options = {"cwd": folder, "env": {"HOME": str(folder), "PATH": os.environ["PATH"], "LC_ALL": "C"}}
        made = subprocess.run(
            [*user, initdb, "-D", folder, "-U", "tester", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )
        if made.returncode:
            pytest.skip(f"initdb: {made.stderr.strip()}")
        server = subprocess.Popen(
            [*user, postgres, "-D", folder, "-k", folder, "-c", "listen_addresses=", "-F"],
            stderr=subprocess.DEVNULL,
            **options,
        )

        def ask(command, input=""):
            return subprocess.run(
                [psql, "-h", folder, "-U", "tester", "-d", "postgres", "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", command],
                input=input,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                **options,
            )

        def take(lines):
            # As text it comes unchanged: CSV with quotes that no line has.
            ask("DROP TABLE IF EXISTS flows; CREATE TABLE flows (record jsonb)")
            copied = ask(
                "COPY flows FROM STDIN (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')", "\n".join(lines) + "\n"
            )
            assert copied.returncode == 0, copied.stderr
            return int(ask("SELECT count(record->'owner'->'cmdline'->>0) FROM flows").stdout)

        try:
            until(lambda: ask("SELECT 1").stdout == "1\n", what="PostgreSQL")
            yield take
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(SECONDS)


def test_postgresql_and_rust_take_every_record(tracked, jsonb):
    orjson = pytest.importorskip("orjson")
    words = [os.fsdecode(bytes(range(first, first + 16)).replace(b"\0", b"")) for first in range(0, 256, 16)]
    words += [os.fsdecode(b"\xed\xb0\x80"), os.fsdecode(b"\xf4\x90\x80\x80"), "\ufffe\uffff\ufdd0\U0010ffff", "\\u0000"]
    senders = []
    with Program(tracked, "--json", "-p", "ipv4/udp") as program:
        try:
            senders = [send(tracked, 4200 + number, word) for number, word in enumerate(words)]
            lines = program.await_lines(len(words))
        finally:
            for sender in senders:
                sender.kill()
                sender.wait()
        program.end()
    for line in lines:
        check(line)
        assert orjson.loads(line) == json.loads(line)
    found = {one["original"]["sport"]: exact(one["owner"], "cmdline")[-1] for one in map(json.loads, lines)}
    assert found == {4200 + number: os.fsencode(word) for number, word in enumerate(words)}
    assert jsonb(lines) == len(words)
    with pytest.raises(AssertionError, match="cannot be converted to text"):
        jsonb(['{"owner":{"cmdline":["\\u0000"]}}'])


@pytest.mark.parametrize("word", [b"\x01", b"\xff", b"\x01\xff", b"\x01\0"], ids=repr)
def test_no_name_makes_a_line_too_long(tracked, tmp_path, word):
    """A program in a folder of a long name, with arguments that take all the room they can; both ends of its flow
    are such."""
    folder = os.fsencode(tmp_path)
    for letter in b"\x01", b"\x02":
        while len(folder) < 3400:
            folder += b"/" + letter * 240
    os.makedirs(folder)
    python = shutil.copy(os.path.realpath("/bin/bash"), folder + b"/bash")
    script = b"exec 3>/dev/udp/127.0.0.1/4103; echo x >&3; sleep 30"
    arguments = [part for part in (word * 4096)[:8000].split(b"\0")]
    sender = None
    with Program(tracked, "--json", "-p", "ipv4/udp") as program:
        try:
            sender = subprocess.Popen(
                [b"nsenter", f"--net=/run/netns/{tracked}".encode(), python, b"-c", script, *arguments]
            )
            [line] = program.await_lines(1)
        finally:
            if sender is not None:
                sender.kill()
                sender.wait()
        program.end()
    owner = check(line)["owner"]
    assert len(line.encode()) < 16384 and owner["pid"] == sender.pid
    assert exact(owner, "exe") == python[:384] and owner["exe_size"] == len(python)
    whole = b"\0".join([python, b"-c", script, *arguments])
    assert b"\0".join(exact(owner, "cmdline")) == whole[:384] and owner["cmdline_size"] == len(whole)


def test_hostile_command_lines(tracked):
    with Program(tracked, "--json", "-p", "ipv4/udp") as program:
        sender = send(tracked, 4002, *HOSTILE)
        try:
            program.await_lines(1)
        finally:
            sender.kill()
            sender.wait()
        program.end()
    [record] = records(program)
    arguments = [sys.executable, "-c", SENDER, "4002", *HOSTILE]
    assert exact(record["owner"], "cmdline") == [os.fsencode(argument) for argument in arguments]
    readable = [os.fsencode(argument).decode(errors="replace") for argument in arguments]
    assert [replaced(one) for one in record["owner"]["cmdline"]] == [replaced(one) for one in readable]
    assert "comm_base64" not in record["owner"] and "exe_base64" not in record["owner"]


def test_processes_are_not_mixed_up(tracked):
    """What was written of a process is kept for its next flow: 40 in turn, more than are kept, each twice."""
    senders = []
    with Program(tracked, "--json", "-p", "ipv4/udp") as program:
        try:
            for number in range(40):
                senders.append(send(tracked, 5000 + number, f"sender-{number}"))
            program.await_lines(40)
        finally:
            for sender in senders:
                sender.kill()
                sender.wait()
        program.end()
    found = {one["original"]["sport"]: one["owner"] for one in records(program)}
    for number, sender in enumerate(senders):
        owner = found[5000 + number]
        assert (owner["pid"], owner["cmdline"][-1]) == (sender.pid, f"sender-{number}")


def test_a_process_that_changes_its_program_is_written_anew(tracked):
    code = (
        f"import os, sys, socket\nexec({SENDER.rpartition('time.sleep')[0]!r})\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {SENDER!r}, '4102', 'after'])"
    )
    with Program(tracked, "--json", "-p", "ipv4/udp") as program:
        process = subprocess.Popen(inside(tracked, [sys.executable, "-c", code, "4101", "before"]))
        try:
            program.await_lines(2)
        finally:
            process.kill()
            process.wait()
        program.end()
    found = {one["original"]["sport"]: one["owner"] for one in records(program)}
    assert found[4101]["pid"] == found[4102]["pid"] == process.pid
    assert (found[4101]["cmdline"][-1], found[4102]["cmdline"][-1]) == ("before", "after")


@pytest.mark.parametrize("size", ["4K", "256K"])
def test_lost_and_recovered_in_the_stream(tracked, flood, size):
    """Stopped while flows come and half of them end: LOST records tell how many are missing, exactly."""
    options = ["--json", "-p", "ipv4/udp", "--attribution", "off", "--rcvbuf", size, "--rcvbuf-max", size]
    with Program(tracked, *options) as program:
        # Once a line has come the table has been read: what was there at the start counts as known.
        made = flood(1, 0, address="10.99.4.1")
        program.await_lines(1)
        os.kill(program.pid, signal.SIGSTOP)
        made += flood(6_000, 0)
        subprocess.run(inside(tracked, ["conntrack", "-F"]), check=True, capture_output=True)
        made += flood(6_000, 0, address="10.99.2.1")
        os.kill(program.pid, signal.SIGCONT)
        program.await_all_read()
        until(lambda: any('"LOST"' in line for line in list(program.lines)), what="a LOST record")
        later = flood(2, 10, address="10.99.3.1")
        until(lambda: "10.99.3.1" in "".join(program.lines[-2:]))
        program.end()
    found = records(program)
    flows = [one for one in found if one["type"] == "NEW"]
    lost = sum(one["lost"] for one in found if one["type"] == "LOST")
    again = [one for one in flows if one.get("recovered")]
    assert len(flows) + lost == made + later and lost > 0
    assert {one["original"]["dst"] for one in again} == {"10.99.2.1"} and len(again) == 6_000
    assert len({(one["original"]["dst"], one["original"]["dport"]) for one in flows}) == len(flows)
    assert "lost" not in found[-1] and not found[-1].get("recovered") and found[-1]["original"]["dst"] == "10.99.3.1"
    assert sum(int(line.split()[1]) for line in program.complaints if "events lost" in line) == lost
    assert sum(int(line.split()[1]) for line in program.complaints if "flows recovered" in line) == len(again)


def test_times_do_not_run_backwards(tracked, flood):
    with Program(tracked, "--json", "-p", "ipv4/udp", "--attribution", "off") as program:
        made = flood(3_000, 0)
        program.await_lines(made)
        program.end()
    times = [one["time_ns"] for one in records(program)]
    assert times == sorted(times) and abs(times[-1] / 1e9 - time.time()) < 30


def test_the_readme_has_every_name():
    if not is_source_tree():
        pytest.skip("the README is not here: tests run against an installed package")
    text = (ROOT / "README.md").read_text()
    schema = text.split("## JSON", 1)[1].split("\n## ", 1)[0]
    for name in {*TYPES, *OWNER_TYPES, *set().union(*TUPLE_NAMES)}:
        assert f"`{name}`" in schema, name
