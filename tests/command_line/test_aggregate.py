"""--aggregate: one line of many flows, and every one of them is counted, however the program ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from support.aggregation import SECOND, model
from support.cli import Program, run, until

UNWRITTEN = re.compile(r"nfct-fast: (\d+) flows received and not written")


def send(count, port=9, begin=20000, address="127.0.0.1"):
    """Make flows, each of a socket of its own, with other source ports."""
    for sport in range(begin, begin + count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", sport))
            sock.sendto(b"x", (address, port))


def counted(lines):
    return sum([json.loads(line).get("count", 1) for line in lines])


def test_a_thousand_flows_of_a_process_are_one_line(tracked, within):
    with Program(tracked, "-p", "udp", "--aggregate", "2s", "--json") as program:
        with within():
            send(1000)
        [line] = [json.loads(line) for line in program.await_lines(1)]
        assert (line["count"], line["owner"]["pid"], line["original"]["dport"]) == (1000, os.getpid(), 9)
        assert line["first_ns"] == line["time_ns"] < line["last_ns"]
        assert "sport" not in line["original"]
        assert program.end()[0] == 0
        assert (len(program.lines), program.complaints) == (1, [])


def test_processes_stay_apart(tracked, within):
    """Also those of one user and one program, and a child that has not called execve."""
    with Program(tracked, "-p", "udp", "--aggregate", "1h", "--json") as program, within():
        children = []
        for i in range(3):
            send(20, begin=20000 + 100 * i)
            children.append(os.fork())
            if children[-1] == 0:
                send(10 + i, begin=30000 + 100 * i)
                os._exit(0)
            os.waitpid(children[-1], 0)
        program.await_all_read()
        assert program.lines == []
        assert program.end()[0] == 0
        lines = [json.loads(line) for line in program.lines]
        assert {line["owner"]["pid"]: line["count"] for line in lines} == {
            os.getpid(): 60,
            **{child: 10 + i for i, child in enumerate(children)},
        }
        assert len(lines) == 4
        assert program.complaints == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_is_held_at_the_end_is_written(tracked, within, number):
    with Program(tracked, "-p", "udp", "--aggregate", "1h") as program, within():
        send(100)
        send(1, 10)
        program.await_all_read()
        assert program.end(number)[0] == 0
        assert [re.sub(r"^\d+: | :: .*", "", line) for line in program.lines] == [
            "ipv4/udp 127.0.0.1/* > 127.0.0.1/9 count=100",
            "ipv4/udp 127.0.0.1/20000 > 127.0.0.1/10 count=1",
        ]
        assert program.complaints == []


def test_flows_that_nobody_took_are_counted_and_not_lines(tracked, within):
    """A pipe that is full: what is in it, and what is reported as not written, are all flows together."""
    reader, writer = os.pipe()
    with Program(tracked, "-p", "udp", "--aggregate", "1h", "--json", stdout=writer) as program, within():
        os.close(writer)
        for port in range(1, 1001):
            send(3, port)
        program.await_all_read()
        status, _ = program.end()
        written = b""
        while part := os.read(reader, 1 << 20):
            written += part
        os.close(reader)
        [unwritten] = [int(match[1]) for line in program.complaints if (match := UNWRITTEN.fullmatch(line))]
        whole = written[: written.rfind(b"\n") + 1].splitlines()
        assert status == 1
        assert 0 < len(whole) < 1000
        assert counted(whole) + unwritten == 3000


def test_an_output_counts_flows_it_has_not_taken(tracked, within, tmp_path):
    gone = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    gone.wait()
    arguments = ("-o", "-", "-o", tmp_path / "log", "--json", "--aggregate", "1h")
    with Program(tracked, "-p", "udp", *arguments, stdout=gone.stdin) as program, within():
        send(50)
        program.await_all_read()
        assert program.end()[0] == 0
        assert counted((tmp_path / "log").read_text().splitlines()) == 50
        assert [line for line in program.complaints if "50 flows not written to standard output" in line]
    gone.stdin.close()


def test_a_recording_keeps_each_flow_and_gives_the_same_lines(tracked, within, tmp_path):
    recording = tmp_path / "recording"
    with Program(tracked, "-p", "udp", "--aggregate", "1s", "--json", "--record", recording) as program, within():
        until(recording.exists)
        for i in range(70):
            send(5, 9 + i % 3, begin=20000 + 10 * i)
            time.sleep(0.05)
        program.await_all_read()
        assert program.end()[0] == 0
        live = list(program.lines)
    whole = run(tracked, "--replay", recording, "--json").stdout.splitlines()
    assert len(whole) == 350
    assert [json.loads(line) for line in live] == model([json.loads(line) for line in whole], SECOND)
    for speed in ((), ("--speed", "10")):
        again = run(tracked, "--replay", recording, "--json", "--aggregate", "1s", *speed).stdout
        assert again.decode().splitlines() == live
    assert len(live) >= 3 * 3


def test_a_line_comes_when_its_time_is_over(tracked, within):
    with Program(tracked, "-p", "udp", "--aggregate", "1s") as program, within():
        send(7)
        until(lambda: any("count=7" in line for line in program.lines))
        send(8, 10)
        until(lambda: any("count=8" in line for line in program.lines))


def test_whole_flows_have_the_sums_of_their_bytes(tracked, within):
    script = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "for _ in range(40):\n"
        "    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:\n"
        "        client.sendall(bytes(1000)), peer.sendall(bytes(5000))\n"
        "        assert len(client.recv(5000, socket.MSG_WAITALL)) == 5000\n"
        "        assert len(peer.recv(1000, socket.MSG_WAITALL)) == 1000\n"
    )
    with within():
        for name in ("acct", "timestamp"):
            with open(f"/proc/sys/net/netfilter/nf_conntrack_{name}", "w") as file:
                file.write("1")
    with Program(tracked, "-p", "tcp", "--flows", "--json", "--aggregate", "2s") as program, within():
        subprocess.run([sys.executable, "-c", script], check=True)
        program.await_all_read()
        subprocess.run(["conntrack", "-D", "-p", "tcp"], check=True, capture_output=True)
        until(lambda: counted(program.lines) == 40)
        assert program.end()[0] == 0
    lines = [json.loads(line) for line in program.lines]
    assert counted(program.lines) == 40
    assert sum([line["original_bytes"] for line in lines]) > 40 * 1000
    assert sum([line["reply_bytes"] for line in lines]) > 40 * 5000
    line = max(lines, key=lambda line: line.get("count", 1))  # all of them, unless the machine is very busy
    assert line["reply_bytes"] > line["count"] * 5000
    assert line["duration_ns"] == line["stop_ns"] - line["start_ns"]
    assert line["first_ns"] == line["start_ns"] < line["time_ns"] <= line["last_ns"]
    assert line["outcome"] == "answered"


def test_the_table_can_be_aggregated(tracked, within):
    with Program(tracked, "-p", "udp") as program, within():
        send(30)
        program.await_lines(30)
    [header, line] = run(tracked, "-L", "-p", "udp", "--aggregate", "1min", "--columns").stdout.decode().splitlines()
    assert header.split()[6:7] == ["COUNT"]
    assert line.split()[2:7] == ["127.0.0.1", "*", "127.0.0.1", "9", "30"]


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("0s", "'0s' is not a time from 1s to 1h, such as 10s or 1min"),
        ("2h", "'2h' is not a time from 1s to 1h, such as 10s or 1min"),
        ("10x", "unknown unit"),
        ("", "a span such as 5min is missing"),
    ],
)
def test_wrong_times_are_refused(netns, time, message):
    done = run(netns, "--aggregate", time)
    assert done.returncode == 2
    assert message in done.stderr.decode()
