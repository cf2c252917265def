"""What the program tells the service manager that started it, on a socket of the test's own."""

import os
import signal
import socket

import pytest

from nfct_fast.command import service_manager
from nfct_fast.command.service_manager import ServiceManager
from support.cli import SECONDS, Program


@pytest.fixture
def manager_socket(tmp_path):
    """A socket that only root can reach, as no other user can reach the folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(SECONDS)
        yield sock


def environment(sock, **more):
    return {**os.environ, "NOTIFY_SOCKET": sock.getsockname(), **more}


def heard(sock):
    return sock.recv(4096).decode().splitlines()


def test_ready_watchdog_and_end(tracked, manager_socket):
    """Under the filter of system calls, and as a user who cannot reach the socket any more."""
    with Program(tracked, env=environment(manager_socket, WATCHDOG_USEC="200000")) as program:
        first = heard(manager_socket)
        assert first == ["READY=1", "STATUS=0 events, 0 lost"]
        assert program._is_ready()
        for _ in range(3):
            assert heard(manager_socket) == ["STATUS=0 events, 0 lost", "WATCHDOG=1"]
        program.end()
        while (last := heard(manager_socket)) != ["STOPPING=1"]:
            assert "WATCHDOG=1" in last
        assert program.process.returncode == 0


def test_a_stopped_program_is_silent(tracked, manager_socket):
    with Program(tracked, env=environment(manager_socket, WATCHDOG_USEC="200000")) as program:
        heard(manager_socket)
        program.stop()
        manager_socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                heard(manager_socket)
        manager_socket.settimeout(1)
        with pytest.raises(TimeoutError):
            heard(manager_socket)
        manager_socket.settimeout(SECONDS)
        program.process.send_signal(signal.SIGCONT)
        assert "WATCHDOG=1" in heard(manager_socket)


def test_a_watchdog_of_another_process(tracked, manager_socket):
    """As where a manager started the one that started this: the manager does not listen to us for it."""
    variables = environment(manager_socket, WATCHDOG_USEC="200000", WATCHDOG_PID="1")
    with Program(tracked, env=variables):
        assert heard(manager_socket)[0] == "READY=1"
        manager_socket.settimeout(1)
        with pytest.raises(TimeoutError):
            heard(manager_socket)


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nowhere", "vsock:2:3", "relative", "/" + "x" * 300])
def test_an_address_that_cannot_be_used(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    said = []
    manager = ServiceManager(said.append)
    assert manager.timer is None
    manager.ready(None)
    manager.beat()
    manager.stopping()
    [sentence] = said
    assert "is not told anything: NOTIFY_SOCKET: " in sentence


def test_abstract_address_and_variables(monkeypatch):
    """They are gone afterwards, lest a process that is started takes itself for the service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0nfct-fast-{os.getpid()}")
        sock.settimeout(SECONDS)
        for name, value in {
            "NOTIFY_SOCKET": f"@nfct-fast-{os.getpid()}",
            "WATCHDOG_USEC": "10",
            "WATCHDOG_PID": str(os.getpid()),
        }.items():
            monkeypatch.setenv(name, value)
        manager = ServiceManager(pytest.fail)
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
        manager.stopping()
        manager.stopping()
        assert heard(sock) == ["STOPPING=1"]
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard(sock)


@pytest.mark.parametrize("interval", ["", "0", "-5", "1e3", "x", "9" * 30])
def test_intervals_that_are_none(manager_socket, monkeypatch, interval):
    monkeypatch.setenv("NOTIFY_SOCKET", manager_socket.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", interval)
    assert ServiceManager(pytest.fail)._watchdog_us == 0


class Reading:
    """Stands for a Conntrack whose reading thread does nothing any more, as no real one can be made to."""

    turns = 1

    def _turns(self):
        return self.turns

    class stats:
        events = lost = 0


def test_a_reading_thread_that_is_stuck(manager_socket, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager_socket.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    now = [0.0]
    monkeypatch.setattr(service_manager.time, "monotonic", lambda: now[0])
    manager, conntrack = ServiceManager(pytest.fail), Reading()
    manager.ready(conntrack)
    assert heard(manager_socket)[0] == "READY=1"

    def beat():
        assert manager.timer.fileno() >= 0
        while not (lines := _beat(manager, manager_socket)):
            pass
        return "WATCHDOG=1" in lines

    assert beat()
    now[0] = 9.0
    assert beat()
    now[0] = 11.0
    assert not beat()
    conntrack.turns = 2
    assert beat()
    now[0], conntrack.turns = 99.0, None  # it has ended, which the next wait for flows reports
    assert beat() and beat()


def _beat(manager, sock):
    manager.beat()
    sock.setblocking(False)
    try:
        return heard(sock)
    except BlockingIOError:
        return None


def test_a_manager_that_takes_nothing(tracked, manager_socket):
    """Its queue is full: flows are logged all the same."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.connect(manager_socket.getsockname())
        filler.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                filler.send(b"x")
    with Program(tracked, env=environment(manager_socket, WATCHDOG_USEC="20000")) as program:
        assert program.end()[0] == 0
