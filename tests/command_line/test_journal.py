"""Flows in the systemd journal: a journald of the test's own, and a socket that shows each byte."""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess

import pytest

from support.cli import Program, run, until
from support.flows import Worker, send

JOURNALD = "/usr/lib/systemd/systemd-journald"
NAMESPACE = "nfcttest"
needs_journald = pytest.mark.skipif(
    not os.path.exists(JOURNALD) or shutil.which("journalctl") is None, reason="systemd-journald is not installed"
)


@pytest.fixture
def own_run():
    """A mount namespace with a /run of its own, for sockets at the paths that they have on a host."""

    def prepare(worker):
        os.makedirs(f"/run/systemd/journal.{NAMESPACE}")
        os.makedirs(f"/run/systemd/journald@{NAMESPACE}.conf.d")
        with open(f"/run/systemd/journald@{NAMESPACE}.conf.d/test.conf", "w") as file:
            file.write("[Journal]\nStorage=volatile\nRateLimitBurst=0\nForwardToWall=no\n")
        worker.say("ready")
        worker.hear()

    def work(worker):
        libc = __import__("ctypes").CDLL(None, use_errno=True)
        assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
        assert libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None) == 0
        prepare(worker)

    with Worker(work) as worker:
        assert worker.hear() == "ready"
        yield ("nsenter", f"--mount=/proc/{worker.pid}/ns/mnt")
        worker.say("end")


@contextlib.contextmanager
def journald(own_run):
    process = subprocess.Popen([*own_run, JOURNALD, NAMESPACE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = f"/run/systemd/journal.{NAMESPACE}/socket"
    try:
        until(lambda: subprocess.run([*own_run, "test", "-S", path]).returncode == 0, what="journald")
        yield process
    finally:
        process.terminate()
        process.wait()


def entries(own_run, *matches):
    command = [*own_run, "journalctl", f"--namespace={NAMESPACE}", "-o", "json", "--no-pager", "-q", "--all", *matches]
    done = subprocess.run(command, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Inside(Program):
    """The program within a namespace of the network and of mounts."""

    def __init__(self, netns, own_run, *arguments, **options):
        super().__init__(netns, *arguments, prefix=own_run, **options)


@needs_journald
def test_fields_of_an_entry(tracked, within, own_run):
    with journald(own_run), Inside(tracked, own_run, "-p", "udp", f"--journal={NAMESPACE}") as program:
        with within(), send(7) as one:
            [entry] = until(lambda: entries(own_run, "NFCT_DPORT=7"), what="an entry")
            sport = one.getsockname()[1]
        assert program.end()[0] == 0
    assert program.lines == program.complaints == []
    assert entry["SYSLOG_IDENTIFIER"] == "nfct-fast" and entry["PRIORITY"] == "6"
    assert entry["MESSAGE_ID"] == "ad821dfb78d94ff6a18ceddef3cebdb9"
    assert (entry["NFCT_TYPE"], entry["NFCT_PROTO"]) == ("NEW", "ipv4/udp")
    assert (entry["NFCT_SRC"], entry["NFCT_SPORT"]) == ("127.0.0.1", str(sport))
    assert (entry["NFCT_PID"], entry["NFCT_USER"]) == (str(os.getpid()), "root")
    assert entry["NFCT_COMMUNITY_ID"].startswith("1:")
    assert f" > 127.0.0.1/7 :: {os.getpid()} " in entry["MESSAGE"] and "\n" not in entry["MESSAGE"]
    assert "NFCT_CONTAINER" not in entry and "OBJECT_PID" not in entry
    assert entry["_UID"] != "0"  # rights were given up before


HOSTILE = b"a\nNFCT_PID=1\nb"


def with_name(name, work):
    def run_named(worker):
        with open("/proc/self/comm", "wb") as file:
            file.write(name)
        return work(worker)

    return Worker(run_named)


@needs_journald
def test_a_name_cannot_forge_a_field(tracked, within, own_run):
    def work(worker):
        with within(), send(7):
            worker.say("sent")
            worker.hear()

    with journald(own_run), Inside(tracked, own_run, "-p", "udp", f"--journal={NAMESPACE}") as program:
        with with_name(HOSTILE, work) as worker:
            assert worker.hear() == "sent"
            [entry] = until(lambda: entries(own_run, "NFCT_DPORT=7"), what="an entry")
            worker.say("end")
        assert entry["NFCT_PID"] == str(worker.pid)
        assert entry["NFCT_COMM"] in (HOSTILE.decode(), list(HOSTILE))
        assert program.end()[0] == 0


@needs_journald
def test_journald_is_started_again(tracked, within, own_run):
    with Program(tracked, "-p", "udp", f"--journal={NAMESPACE}", ready=False, prefix=own_run) as program:
        assert program.wait() == 1
    assert "No such file" in program.complaints[0] and NAMESPACE in program.complaints[0]
    with journald(own_run):
        program = Inside(tracked, own_run, "-p", "udp", f"--journal={NAMESPACE}")
    with program, within():
        with send(8):
            until(lambda: program.complaints, what="the complaint")
            with journald(own_run):
                until(lambda: entries(own_run, "NFCT_DPORT=8"), what="what was waiting")
                with send(9):
                    until(lambda: entries(own_run, "NFCT_DPORT=9"), what="what came later")
        assert program.end()[0] == 0


def listener(worker, path):
    """A datagram socket at a path of the mount namespace of `worker`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    os.chmod(path, 0o666)
    return sock


def parsed(datagram):
    """The fields of a datagram of the native protocol."""
    fields, at = {}, 0
    while at < len(datagram):
        end = datagram.index(b"\n", at)
        name, equals, value = datagram[at:end].partition(b"=")
        at = end + 1
        if not equals:
            [size] = struct.unpack_from("<Q", datagram, at)
            value = datagram[at + 8 : at + 8 + size]
            at += 8 + size
            assert datagram[at : at + 1] == b"\n"
            at += 1
        assert name not in fields, name
        fields[name.decode()] = value
    return fields


def test_an_entry_byte_by_byte_and_a_stopped_journal(tracked, flood, own_run, tmp_path):
    """A receiver that takes nothing is waited for half a second at the end, and delays nobody before."""
    path = f"/proc/{own_run[1].split('/')[2]}/root/run/systemd/journal.{NAMESPACE}/socket"
    log = tmp_path / "log"
    with (
        listener(None, path) as sock,
        Inside(tracked, own_run, "-p", "udp", "--attribution", "off", f"--journal={NAMESPACE}", "-o", log) as program,
    ):
        made = flood(30_000, 30_000)
        program.await_all_read()
        until(lambda: log.read_text().count("\n") == made, what="the file")
        status, seconds = program.end(signal.SIGTERM)
        assert status == 0 and seconds < 2
        sock.setblocking(False)
        got = []
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(parsed(sock.recv(1 << 20)))
    assert all(set(fields) >= {"MESSAGE", "PRIORITY", "NFCT_DST", "NFCT_REASON"} for fields in got)
    [said] = [line for line in program.complaints if "flows not written to the journal" in line][-1:]
    assert len(got) + int(said.split()[1]) == made
    assert log.read_text().startswith(got[0]["MESSAGE"].decode() + "\n")


def test_a_namespace_that_is_not_there(netns):
    done = run(netns, "--journal=nonesuch")
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert "the journal namespace nonesuch: No such file or directory" in line
