"""Flows as syslog messages: to a server of the test's own, and to a real rsyslog."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from support.cli import Program, inside, run, until
from support.flows import send

RSYSLOG = shutil.which("rsyslogd") or shutil.which("rsyslogd", path="/usr/sbin")
MESSAGE = re.compile(
    r"<(?P<pri>\d+)>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>\S{1,255}) (?P<app>\S{1,48}) "
    r"(?P<pid>\S{1,128}) (?P<id>\S{1,32}) \[nfct@32473(?P<data>(?: [a-z0-9_]{1,32}=\"(?:[^\"\\\]]|\\[\"\\\]])*\")*)\] "
    r"(?P<text>.*)",
    re.S,
)
PARAMETER = re.compile(r' ([a-z0-9_]+)="((?:[^"\\\]]|\\["\\\]])*)"')


def parsed(message):
    match = MESSAGE.fullmatch(message.decode())
    assert match, message
    return match, dict(PARAMETER.findall(match["data"]))


def frames(data):
    """Messages with octet counting, and what is left."""
    messages = []
    while (blank := data.find(b" ")) > 0:
        size = int(data[:blank])
        if len(data) < blank + 1 + size:
            break
        messages.append(data[blank + 1 : blank + 1 + size])
        data = data[blank + 1 + size :]
    return messages, data


class Server:
    """A TCP server that takes one connection after the other and collects what comes."""

    def __init__(self, port=0):
        self.messages, self.rests = [], []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._connection = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                self._connection, _ = self._listener.accept()
            except OSError:
                return
            data = b""
            while True:
                try:
                    part = self._connection.recv(1 << 20)
                except OSError:
                    part = b""
                if not part:
                    break
                more, data = frames(data + part)
                self.messages += more
            self.rests.append(data)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
        self._thread.join()


def test_messages_over_tcp_and_a_server_that_is_started_again(tracked, within):
    with within():
        server = Server()
    with Program(tracked, "-p", "udp", f"--syslog=tcp:127.0.0.1:{server.port}") as program, within():
        with send(7) as one:
            until(lambda: server.messages, what="a message")
            sport = one.getsockname()[1]
        server.close()
        with send(8):
            until(lambda: program.complaints, what="the complaint")
            again = Server(server.port)
            until(lambda: again.messages, what="what was waiting")
        assert program.end()[0] == 0
        until(lambda: again.rests, what="the end")
        again.close()
    match, fields = parsed(server.messages[0])
    assert (match["pri"], match["app"], match["id"], match["host"]) == ("30", "nfct-fast", "NEW", os.uname().nodename)
    assert (fields["dst"], fields["dport"], fields["sport"]) == ("127.0.0.1", "7", str(sport))
    assert fields["pid"] == str(os.getpid()) and fields["comm"]
    assert " > 127.0.0.1/7 :: " in match["text"] and "\n" not in match["text"]
    assert [parsed(message)[1]["dport"] for message in again.messages] == ["8"]
    assert again.rests == [b""]


def test_structured_data_cannot_be_forged(tracked, within):
    with within():
        server = Server()
    name = b'a"] x="\\\n<0>1'
    with open("/proc/self/comm", "rb") as file:
        before = file.read().rstrip(b"\n")
    with Program(tracked, "-p", "udp", "--json", f"--syslog=tcp:127.0.0.1:{server.port}") as program:
        try:
            with open("/proc/self/comm", "wb") as file:
                file.write(name)
            with within(), send(7):
                until(lambda: server.messages, what="a message")
        finally:
            with open("/proc/self/comm", "wb") as file:
                file.write(before)
        assert program.end()[0] == 0
    server.close()
    [message] = server.messages
    match, fields = parsed(message)
    assert re.sub(r'\\(["\\\]])', r"\1", fields["comm"]) == name.decode().replace("\\", "\\\\").replace("\n", "\\n")
    assert json.loads(match["text"])["owner"]["comm"] == name.decode()


def test_a_stopped_server_delays_nobody(tracked, within, flood, tmp_path):
    log = tmp_path / "log"
    with within():
        listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    arguments = ("-p", "udp", "--attribution", "off", f"--syslog=tcp:127.0.0.1:{port}", "-o", log)
    with Program(tracked, *arguments) as program:
        connection, _ = listener.accept()
        made = flood(60_000, 30_000)
        until(lambda: log.read_text().count("\n") == made, what="the file")
        status, seconds = program.end(signal.SIGTERM)
        assert status == 0 and seconds < 2
        data = b""
        while part := connection.recv(1 << 20):
            data += part
    connection.close()
    listener.close()
    got, _ = frames(data)
    said = [line for line in program.complaints if "flows not written to syslog tcp" in line][-1]
    assert len(got) + int(said.split()[1]) == made


def test_messages_over_udp(tracked, within):
    with within():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind(("::1", 0))
    port = sock.getsockname()[1]
    sock.settimeout(10)
    with Program(tracked, "-p", "ipv4/udp", f"--syslog=udp:[::1]:{port}") as program, within():
        with send(7):
            _, fields = parsed(sock.recv(65536))
            assert fields["dport"] == "7"
        sock.close()
        for number in range(8, 12):
            with send(number):
                pass
            program.await_all_read()
        until(lambda: _end_is_told(program), what="the count")
    [said] = [line for line in program.complaints if f"flows not written to syslog udp:[::1]:{port}" in line][-1:]
    assert 1 <= int(said.split()[1]) <= 4


def _end_is_told(program):
    assert program.end()[0] == 0
    return True


def test_the_local_daemon_gets_its_own_form(tracked, within, tmp_path):
    path = tmp_path / "log"
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        with Program(tracked, "-p", "udp", f"--syslog=unix:{path}") as program, within():
            with send(7):
                text = sock.recv(65536).decode()
            assert program.end()[0] == 0
    assert re.fullmatch(r"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d nfct-fast\[\d+\]: \d+: ipv4/udp .*", text)


def test_a_host_without_an_address_is_refused(netns):
    done = run(netns, "--syslog=udp:nonesuch.invalid")
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert "nonesuch.invalid" in line


# A real server

RULES = """\
module(load="imtcp")
module(load="imudp")
input(type="imtcp" port="{port}" address="127.0.0.1")
input(type="imudp" port="{port}" address="127.0.0.1")
template(name="all" type="string" string="%APP-NAME%|%MSGID%|%STRUCTURED-DATA%|%msg%\\n")
action(type="omfile" file="{file}" template="all")
"""


@pytest.fixture
def rsyslog(tracked, tmp_path):
    """A function that starts a real rsyslog in the namespace, and returns its process."""
    if RSYSLOG is None:
        pytest.skip("rsyslog is not installed")
    rules, file, started = tmp_path / "rsyslog.conf", tmp_path / "messages", []
    rules.write_text(RULES.format(port=6014, file=file))

    def start():
        command = [RSYSLOG, "-n", "-f", str(rules), "-i", str(tmp_path / "pid")]
        started.append(subprocess.Popen(inside(tracked, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        # It answers on its port; a flow of TCP, which the program was not asked for.
        until(lambda: _listens(tracked, 6014), what="rsyslog")
        return started[-1]

    yield start, file
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def _listens(netns, port):
    done = subprocess.run(inside(netns, ["ss", "-Hltn", f"sport = {port}"]), capture_output=True, check=True)
    return bool(done.stdout)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rsyslog(tracked, within, rsyslog, transport):
    start, file = rsyslog
    server = start()
    with Program(tracked, "dport 7,8,9", f"--syslog={transport}:127.0.0.1:6014") as program, within():
        with send(7):
            until(lambda: file.exists() and 'dport="7"' in file.read_text(), what="a message")
        server.send_signal(signal.SIGSTOP)  # slow: what is sent meanwhile waits in the kernel
        with send(8):
            program.await_all_read()
        server.send_signal(signal.SIGCONT)
        until(lambda: 'dport="8"' in file.read_text(), what="the second message")
        server.terminate()
        server.wait()
        if transport == "tcp":
            with send(9):
                start()
                until(lambda: 'dport="9"' in file.read_text(), what="the third message")
        assert program.end()[0] == 0
    first = file.read_text().splitlines()[0].split("|")
    assert first[:2] == ["nfct-fast", "NEW"]
    assert first[2].startswith("[nfct@32473 ") and f'pid="{os.getpid()}"' in first[2]
    assert " > 127.0.0.1/7 :: " in first[3]
