"""The files for the way from hosts to ClickHouse are understood by those they are for; relay.py keeps its word.

`make fleet` runs all of it.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest

from nfct_fast.command import fleet
from support.child import Child
from support.cli import SECONDS

MESSAGES = [b'<133>1 - alpha nfct-fast - - - {"n":%d}' % number for number in range(300)]


@pytest.mark.skipif(not shutil.which("rsyslogd"), reason="no rsyslogd, which make test installs")
@pytest.mark.parametrize("name", ["rsyslog-host.conf", "rsyslog-collector.conf"])
def test_rsyslog_takes_its_files(name, tmp_path):
    path = tmp_path / name
    path.write_text(fleet.text(name))
    checked = subprocess.run(["rsyslogd", "-N1", "-f", path], capture_output=True, text=True)
    assert checked.returncode == 0
    said = [line for line in checked.stderr.splitlines() if "config validation run" not in line]
    assert not said
    path.write_text(fleet.text(name).replace("confirmMessages", "confirmMesages"))
    checked = subprocess.run(["rsyslogd", "-N1", "-f", path], capture_output=True, text=True)
    assert checked.returncode and "confirmMesages" in checked.stderr


@pytest.mark.parametrize("name", ["vector.yaml", "fluent-bit.yaml", "otelcol.yaml"])
def test_what_is_untested_says_so(name):
    assert "Untested" in fleet.about(name)


class Server:
    """A server of RELP that takes one connection after the other, and acknowledges `acknowledged` messages of each."""

    def __init__(self, *acknowledged):
        self._listener, self.received = socket.create_server(("127.0.0.1", 0)), []
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=acknowledged)
        self._thread.start()

    def _serve(self, *acknowledged):
        for count in acknowledged:
            connection = self._listener.accept()[0]
            with connection, connection.makefile("rb") as frames:
                while count >= 0 and (header := frames.readline(1) + self._until_third_space(frames)).strip():
                    number, command, size = header.split()
                    data = frames.read(int(size) + 1)
                    assert data.endswith(b"\n")
                    if command == b"open":
                        text = b"200 OK\nrelp_version=0\ncommands=syslog"
                    else:
                        count -= 1
                        if count < 0:
                            break
                        self.received.append(data[:-1])
                        text = b"200 OK"
                    connection.sendall(b"%s rsp %d %s\n" % (number, len(text), text))

    @staticmethod
    def _until_third_space(frames):
        header = b""
        while header.count(b" ") < 3 and (byte := frames.read(1)):
            header += byte
        return header

    def close(self):
        self._listener.close()
        self._thread.join(SECONDS)


@contextlib.contextmanager
def relay(tmp_path, port):
    """relay.py as rsyslog starts it: a function that says a line and returns the answer, and the process."""
    program = tmp_path / "relay.py"
    program.write_text(fleet.text("relay.py"))
    command = [sys.executable, "-I", program, f"relp://127.0.0.1:{port}", tmp_path / "pending"]
    with Child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:

        def say(line):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert process.stdout.readline() == b"OK\n"
        yield say, process
        process.stdin.close()
        process.wait(SECONDS)


def batch(say, messages):
    assert say(b"BEGIN TRANSACTION") == b"OK"
    for message in messages:
        assert say(message) == b"DEFER_COMMIT"


def test_a_batch_is_confirmed_when_all_of_it_is_acknowledged(tmp_path):
    server = Server(150, 1_000)
    with relay(tmp_path, server.port) as (say, _):
        batch(say, MESSAGES)
        assert say(b"COMMIT TRANSACTION").startswith(b"not delivered")
        assert server.received == MESSAGES[:150]
        batch(say, MESSAGES)
        assert say(b"COMMIT TRANSACTION") == b"OK"
        batch(say, MESSAGES[:2])
        assert say(b"COMMIT TRANSACTION") == b"OK"
    server.close()
    assert server.received[150:] == MESSAGES + MESSAGES[:2]


def test_what_rsyslog_does_not_repeat_is_sent_all_the_same(tmp_path):
    server = Server(0, 1_000)
    with relay(tmp_path, server.port) as (say, _):
        batch(say, MESSAGES[:5])
        assert say(b"COMMIT TRANSACTION").startswith(b"not delivered")
        batch(say, MESSAGES[4:6])
        assert say(b"COMMIT TRANSACTION") == b"OK"
    server.close()
    assert server.received == MESSAGES[:6]


def test_nobody_is_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with relay(tmp_path, port) as (say, _):
        batch(say, MESSAGES[:2])
        assert say(b"COMMIT TRANSACTION").startswith(b"not delivered")


def test_the_next_relay_sends_what_a_killed_one_had(tmp_path):
    server = Server(1_000)
    with relay(tmp_path, server.port) as (say, process):
        batch(say, MESSAGES[:10])
        process.kill()
        process.wait(SECONDS)
    assert os.stat(tmp_path / "pending").st_mode & 0o777 == 0o600
    with relay(tmp_path, server.port) as (say, _):
        batch(say, MESSAGES[10:11])
        assert say(b"COMMIT TRANSACTION") == b"OK"
        batch(say, MESSAGES[11:12])
        assert say(b"COMMIT TRANSACTION") == b"OK"
    server.close()
    assert server.received == MESSAGES[:12]
