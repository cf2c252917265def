"""The examples do what they say, with real flows, and satisfy mypy --strict."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.cli import SECONDS, inside, until
from support.columns import reader
from support.flows import send
from support.paths import ROOT

HERE = Path(__file__).resolve().parent
EXAMPLES = sorted(path for path in HERE.glob("*.py") if not path.stem.startswith("test_"))


def community_id(src, sport, dst, dport, proto=17):
    """Version 1 of https://github.com/corelight/community-id-spec, with seed 0, for IPv4."""
    one, other = sorted([(socket.inet_aton(src), sport), (socket.inet_aton(dst), dport)])
    data = struct.pack(">H4s4sBxHH", 0, one[0], other[0], proto, one[1], other[1])
    return "1:" + base64.b64encode(hashlib.sha1(data).digest()).decode()


class Example:
    """An example at work; `line()` is the next one it prints."""

    def __init__(self, netns, name, *arguments, **options):
        command = inside(netns, [sys.executable, "-u", HERE / f"{name}.py", *map(str, arguments)])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def line(self):
        assert select.select([self.process.stdout], [], [], SECONDS)[0], "it printed nothing"
        return self.process.stdout.readline()

    def lines_until(self, pattern):
        seen = []
        while not re.search(pattern, line := self.line()):
            assert line, f"it ended: {seen} {self.process.stderr.read()}"
            seen.append(line)
        return line

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.communicate(timeout=SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.mark.skipif(
    not (ROOT / "src").exists(), reason="the sources are not here: the stubs are the installed package's"
)
def test_types(tmp_path):
    environment = os.environ | {"MYPYPATH": str(ROOT / "src"), "MYPY_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "mypy", "--strict", *EXAMPLES]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE)
    assert done.returncode == 0, done.stdout


def test_each_is_tested():
    text = Path(__file__).read_text()
    assert [path.stem for path in EXAMPLES if f'"{path.stem}"' not in text] == []


def test_bytes_per_unit(tracked, within):
    def serve(server):
        with server.accept()[0] as there:
            there.recv(10)
            there.sendall(b"y" * 50_000)

    subprocess.run(
        inside(tracked, ["sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1"]),
        check=True,
    )
    with Example(tracked, "bytes_per_unit", 0) as example:
        port = int(re.search(r":(\d+)/", example.line())[1])
        with within(), socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=serve, args=(server,))
            thread.start()
            with socket.create_connection(server.getsockname()) as client:
                client.sendall(b"x" * 10)
                while client.recv(1 << 16):
                    pass
            thread.join(SECONDS)
            subprocess.run(inside(tracked, ["conntrack", "-F"]), check=True, capture_output=True)
            received = 0
            while received < 50_000:
                with socket.create_connection(("127.0.0.1", port), SECONDS) as scrape:
                    scrape.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                    answer = scrape.makefile().read()
                found = re.findall(r'^unit_bytes_total\{unit="[^"]*",direction="received"\} (\d+)$', answer, re.M)
                received = sum(map(int, found))
    assert "text/plain; version=0.0.4" in answer and "# TYPE unit_bytes_total counter" in answer


def test_watcher(tracked, within, tmp_path):
    address = str(tmp_path / "notify")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(address)
        systemd.settimeout(SECONDS)
        environment = os.environ | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        with Example(tracked, "watcher", 4711, env=environment) as example:
            assert systemd.recv(1000) == b"READY=1"
            with within(), send(4710), send(4711):
                line = example.line()
            assert f"Process {os.getpid()}" in line
            told = [systemd.recv(1000).decode() for _ in range(3)]
            assert all(re.fullmatch(r"WATCHDOG=1\nSTATUS=\d+ events, 0 lost", one) for one in told)
            assert example.end() == ("", "") and example.process.returncode == 0
        last = b""
        while last != b"STOPPING=1":
            last = systemd.recv(1000)


@pytest.mark.parametrize("first", ["alert", "flow"])
def test_alerts(tracked, within, tmp_path, first):
    """The IDS is played: its Community ID is that of the flow it names, made by another program."""
    eve = tmp_path / "eve.json"
    eve.write_text('{"event_type": "alert", "community_id": "of yesterday"}\n')
    with Example(tracked, "alerts", eve) as example, within():
        assert example.line() == "ready\n"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, open(eve, "a") as ids:
            sender.bind(("127.0.0.1", 0))
            alert = {
                "event_type": "alert",
                "community_id": community_id("127.0.0.1", sender.getsockname()[1], "127.0.0.1", 4713),
                "alert": {"signature": "TEST\n"},
            }
            steps = {
                "alert": lambda: print(
                    json.dumps({"event_type": "dns"}), json.dumps(alert), sep="\n", file=ids, flush=True
                ),
                "flow": lambda: sender.sendto(b"x", ("127.0.0.1", 4713)),
            }
            steps.pop(first)()
            time.sleep(0.3)
            [last] = steps.values()
            last()
            line = example.line()
    assert line.startswith("'TEST\\n' 127.0.0.1 127.0.0.1") and f"Process {os.getpid()} " in line


def test_workers(tracked, within):
    with Example(tracked, "workers", 2) as example:
        assert example.line() == "ready\n"
        with within(), send(4712):
            assert re.search(r"^\S+ > \S+ 4712$", example.lines_until("4712"))
        output, complaints = example.end()
        assert output == "" and complaints.endswith("0 jobs dropped\n") and example.process.returncode == 0


class Inserts(http.server.BaseHTTPRequestHandler):
    """Collects what is inserted, as ClickHouse would."""

    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_batches_to_clickhouse(tracked, within):
    """That its batches come into the tables, tests/fleet/test_batches_over_http.py shows."""
    pyarrow = reader("pyarrow")
    with within():
        server = http.server.HTTPServer(("127.0.0.1", 0), Inserts)
    server.bodies = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    inserts = []
    try:
        with Example(tracked, "batches_to_clickhouse", f"http://127.0.0.1:{server.server_port}/"):

            def arrived():
                with within():
                    with send(7171):
                        pass
                    subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
                time.sleep(0.3)
                while server.bodies:
                    table = pyarrow.ipc.open_stream(server.bodies.pop()).read_all()
                    inserts.append(table["dport"].to_pylist())
                return sum(7171 in ports for ports in inserts) > 1

            until(arrived)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not any(server.server_port in ports for ports in inserts), "an insert made a flow that was inserted"
