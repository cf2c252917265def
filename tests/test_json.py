"""JSON lines: the schema of the README, whatever other processes are called."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support_cli import Program, inside, until
from support_wheel import is_source_tree

TYPES = {
    "type": str, "time": str, "time_ns": int, "proto": str, "protonum": int, "original": dict, "reply": dict,
    "direction": str, "status": list, "mark": int, "zone": int, "timeout": int, "state": int, "id": int, "netns": int,
    "original_packets": int, "original_bytes": int, "reply_packets": int, "reply_bytes": int, "start_ns": int,
    "stop_ns": int, "recovered": bool, "owner": dict, "peer": dict, "lost": int,
}
ALWAYS = {"type", "time", "time_ns", "proto", "protonum", "original", "mark", "zone", "owner"}
OWNER_TYPES = {
    "pid": (int, type(None)), "ppid": int, "comm": str, "exe": str, "cmdline": list, "cmdline_size": int, "cgroup": str,
    "unit": str, "user_unit": str, "slice": str, "container": str, "runtime": str, "uid": int, "gid": int, "inode": int,
    "cookie": int, "cgroup_id": int, "others": list, "match": str, "reason": str,
}
TUPLE_NAMES = ({"src", "dst", "sport", "dport"}, {"src", "dst", "icmp_type", "icmp_code", "icmp_id"})
HOSTILE = ['two\nlines', 'quote " and \\ backslash', "tab\tnul-free\x1b[31m", "\u2028\u202e", "\U0001f600 é", "",
           os.fsdecode(b"\xff\xfe not utf-8 \xc3"), '{"type":"LOST"}', "\x7f\x01"]
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
        assert set(record) == {"type", "time", "time_ns", "lost"} and record["lost"] > 0
        return record
    assert ALWAYS <= set(record) and record["type"] in ("NEW", "UPDATE", "DESTROY")
    assert re.fullmatch(r"ipv[46]/\S+", record["proto"])
    for name in ("original", "reply"):
        assert set(record.get(name, TUPLE_NAMES[0])) in TUPLE_NAMES or set(record[name]) in TUPLE_NAMES
    for name in ("owner", "peer"):
        for key, value in record.get(name, {}).items():
            assert isinstance(value, OWNER_TYPES[key]), (key, value)
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
    assert (record["type"], record["proto"], record["protonum"], record["direction"]) == ("NEW", "ipv4/udp", 17, "local")
    assert record["netns"] == os.stat(f"/run/netns/{tracked}").st_ino
    assert record["owner"]["pid"] == sender.pid and record["owner"]["ppid"] == os.getpid()
    assert record["owner"]["uid"] == record["owner"]["gid"] == 0
    assert "peer" in record and "reason" in record["peer"]


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
    assert record["owner"]["cmdline"] == [sys.executable, "-c", SENDER, "4002", *HOSTILE]


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
    code = (f"import os, sys, socket\nexec({SENDER.rpartition('time.sleep')[0]!r})\n"
            f"os.execv(sys.executable, [sys.executable, '-c', {SENDER!r}, '4102', 'after'])")
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
    text = (Path(__file__).parents[1] / "README.md").read_text()
    schema = text.split("## JSON", 1)[1].split("\n## ", 1)[0]
    for name in {*TYPES, *OWNER_TYPES, *TUPLE_NAMES[0], *TUPLE_NAMES[1]}:
        assert f"`{name}`" in schema, name
