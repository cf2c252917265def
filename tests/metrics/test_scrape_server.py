"""Metrics over HTTP: the process that serves them, whom it answers, and what cannot be done to it or through it."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nfct_fast.metrics.listen_address import parse_listen_address
from nfct_fast.metrics.scrape_server import MOST, REQUEST, Request
from support.cli import PROGRAM, Program, inside, run, until

URL = "http://127.0.0.1:9464/metrics"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def get(url=URL, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        return response.read().decode()


def samples(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def server_of(program):
    """The process id of its nfct-metrics."""
    for path in Path(f"/proc/{program.pid}/task").glob("*/children"):
        for child in path.read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "nfct-metrics\n":
                return int(child)


def send(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", port))


@pytest.fixture
def serving(tracked, within):
    """The program with metrics, and the thread in its namespace."""
    with within(), Program(tracked, "-p", "udp", "--metrics", "9464", command=PROGRAM) as program:
        yield program


def test_a_scrape(serving):
    for _ in range(3):
        send(4321)
    serving.await_lines(3)
    until(lambda: samples(get())["nfct_flows_total", "new"] == 3, what="all three in the metrics")
    assert get(URL + "?x=1") == get() and "# EOF" not in get()
    assert get(Accept=OPENMETRICS).endswith("\n# EOF\n")
    head = urllib.request.urlopen(urllib.request.Request(URL, method="HEAD"), timeout=10)
    assert head.read() == b"" and int(head.headers["Content-Length"]) > 1000
    assert head.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert serving.end()[0] == 0 and serving.complaints == []


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)])
def test_what_is_not_there(serving, path, method, status):
    request = urllib.request.Request("http://127.0.0.1:9464" + path, method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == status
    refused.value.close()


def connected(data=b""):
    sock = socket.create_connection(("127.0.0.1", 9464), timeout=10)
    sock.sendall(data)
    return sock


def test_who_asks_in_bad_faith_delays_nobody_for_long(serving):
    """Half requests, endless heads, answers that nobody reads, and more of all that than there are places."""
    with ExitStack() as stack:
        for number in range(8 * MOST):
            bad = [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 200, b"\0" * 100][number % 4]
            stack.enter_context(connected(bad))
        assert samples(get())["nfct_overruns_total",] == 0
        send(4321)
        serving.await_lines(1)
    for data in (
        b"\0\r\n\r\n",
        b"GET / / HTTP/9\r\n\r\n",
        b"\xff" * 2 * REQUEST,
        b"GET /" + b"a" * REQUEST + b"\r\n\r\n",
    ):
        with connected(data) as sock:
            try:
                answer = sock.recv(1 << 16)
            except ConnectionResetError:
                answer = b""
            assert not answer or b" 4" in answer or b" 5" in answer, answer
    assert samples(get())
    assert serving.end()[0] == 0 and serving.complaints == []


def test_a_connection_that_says_nothing_is_closed(serving):
    with connected(b"GET ") as sock:
        assert sock.recv(1) == b""
    assert samples(get())


def test_its_rights(serving):
    until(lambda: samples(get()), what="an answer")
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{server_of(serving)}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert {status[key] for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["Seccomp"], status["NoNewPrivs"], status["Uid"].split()[0] != "0") == ("2", "1", True)
    table = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    assert (
        f"pid={server_of(serving)}," in table and f"pid={serving.pid}," not in table
    )  # the program has no such socket


def test_flows_are_logged_without_it(serving):
    """It is of the same user as others may be, who can kill it."""
    os.kill(server_of(serving), signal.SIGKILL)
    until(lambda: serving.complaints, what="what became of it")
    assert serving.complaints == ["nfct-fast: metrics are not served any more: their process has ended"]
    send(4321)
    serving.await_lines(1)
    assert serving.end()[0] == 0


def test_it_may_be_stopped(serving):
    server = server_of(serving)
    os.kill(server, signal.SIGSTOP)
    with connected(b"GET /metrics HTTP/1.0\r\n\r\n"):
        send(4321)
        serving.await_lines(1)
        assert serving.end()[0] == 0 and serving.complaints == []
    os.kill(server, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{server}").exists(), what="its end")


def test_it_ends_with_the_program(serving):
    server = server_of(serving)
    serving.process.kill()
    until(lambda: not Path(f"/proc/{server}").exists(), what="its end")


def test_scrapes_while_nobody_reads_the_output(tracked, within):
    """That is when they matter."""
    reader, writer = os.pipe()
    with within(), Program(tracked, "-p", "udp", "--metrics", ":9464", stdout=writer, command=PROGRAM) as program:
        for port in range(2000, 4000):
            send(port)
        until(lambda: samples(get())["nfct_events_total",] >= 2000, what="events")
        os.close(reader)
        os.close(writer)
        program.end()


def test_what_each_output_has_not_taken(tracked, within, tmp_path):
    tmp_path.chmod(0o755)
    words = ["-p", "udp", "--metrics", "9464", "-o", str(tmp_path / "flows"), "-o", "-"]
    with within(), Program(tracked, *words, command=PROGRAM) as program:
        send(4321)
        program.await_lines(1)
        found = samples(get())
    outputs = {key[1]: value for key, value in found.items() if key[0] == "nfct_output_flows_dropped_total"}
    assert outputs == {str(tmp_path / "flows"): 0, "standard output": 0}


def test_groups_of_flows(tracked, within):
    with within(), Program(tracked, "-p", "udp", "--metrics", "9464", "--aggregate", "1h", command=PROGRAM) as program:
        assert "nfct_aggregate_groups 0\n" in get()
        send(4321)
        send(4321)
        send(4322)
        until(lambda: samples(get())["nfct_aggregate_groups",] == 2, what="two groups")
        assert samples(get())["nfct_aggregate_groups_early_total",] == 0
        assert program.end()[0] == 0 and len(program.lines) == 2


def test_without_a_sandbox_and_on_ipv6(tracked, within):
    with within(), Program(tracked, "-p", "udp", "--no-sandbox", "--metrics", "[::1]:9464", command=PROGRAM) as program:
        assert samples(get("http://[::1]:9464/metrics"))
        assert program.end()[0] == 0 and program.complaints == []


def test_everybody_is_served_only_if_that_is_said(tracked, within):
    with within(), Program(tracked, "-p", "udp", "--metrics", "0.0.0.0:0", command=PROGRAM) as program:
        until(lambda: program.complaints, what="where")
        [line] = program.complaints
        assert line.endswith("/metrics to everybody who can connect, without a password")
        assert samples(get(line.split()[5].replace("0.0.0.0", "127.0.0.1")))


def test_an_address_that_is_taken(tracked, within):
    with within(), socket.create_server(("127.0.0.1", 9464)):
        done = run(tracked, "--metrics", "9464")
    assert done.returncode == 1
    assert done.stderr == b"nfct-fast: metrics cannot be served at 127.0.0.1:9464: Address already in use\n"


@pytest.mark.parametrize("words", [["--metrics", "9464", "-L"], ["--metrics", "9464", "--replay", "x"]])
def test_what_it_does_not_go_with(words):
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", "127.0.0.1:9464"),
        (":9464", "127.0.0.1:9464"),
        ("localhost:0", "127.0.0.1:0"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]:9464", "[::1]:9464"),
        ("[0:0::1]:9464", "[::1]:9464"),
    ],
)
def test_addresses(text, address):
    assert str(parse_listen_address(text)) == address


@pytest.mark.parametrize(
    "text", ["", ":", "65536", "-1", "::1:80", "[::1]", "[x]:1", "host:1", "1.2.3:4", "1 2", "\u0663"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="is not a"):
        parse_listen_address(text)
    done = subprocess.run([*PROGRAM, f"--metrics={text}"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", 0),
        (b"GET /metrics HTTP/1.0\r\nAccept: */*\r\n\r\n", 0),
        (b"GET /metrics?a=b HTTP/1.1\r\naccept: a, application/openmetrics-text; q=1\r\n\r\n", 1),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", None),
        (b"GET  HTTP/1.1\r\n\r\n", None),
        (b"\r\n\r\n", None),
        (b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", None),
    ],
)
def test_requests(data, format):
    assert Request(data).format == format


# Attacks from inside the process: `attack` runs there in place of its work.
INSIDE = """
import ctypes, errno, os, socket, sys
from nfct_fast.kernel.program_user import find_user
from nfct_fast.rights import Rights
libc = ctypes.CDLL(None, use_errno=True)

def called(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def attack(program, listener):
    mine = socket.socket(fileno=listener)
    accepted, _ = mine.accept()
    for what in (
        lambda: open("/etc/passwd"),
        lambda: open("/proc/self/status"),
        lambda: socket.socket(),
        lambda: mine.shutdown(socket.SHUT_RDWR),
        lambda: accepted.connect(("127.0.0.1", 9)),
        lambda: called("connect", accepted.fileno(), bytes(16), 16),    # AF_UNSPEC: not connected any more
        lambda: mine.bind(("127.0.0.1", 0)),
        os.fork,
        lambda: os.kill(os.getppid(), 0),
        lambda: os.execv("/bin/true", ["true"]),
    ):
        try:
            what()
            os.write(program, b"0 ")
        except OSError as error:
            os.write(program, b"%d " % error.errno)

with socket.create_server(("127.0.0.1", 0)) as server:
    rights = Rights(user=find_user(), filter_calls=True, use_helpers=True)
    pid, fd = rights.spawn_server("nfct-attacked", lambda: attack, server.fileno())
    with socket.create_connection(server.getsockname()), socket.socket(fileno=fd) as end:
        found = b""
        while data := end.recv(1000):
            found += data
print(*found.split())
"""


def test_attacks_from_inside_it_fail(tracked):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        inside(tracked, [sys.executable, "-c", INSIDE]), capture_output=True, text=True, env=environment, timeout=30
    )
    errors = [eval(one) for one in done.stdout.split()]
    assert len(errors) == 10 and {int(error) for error in errors} <= {1, 13}, done
