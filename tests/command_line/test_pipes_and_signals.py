"""Pipes, disks, terminals, signals and missing privileges: what the program does about each."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from support.child import Child
from support.cli import COMMAND, LINE, SECONDS, Program, inside, until
from support.netns import ip
from support.stopwatch import Stopwatch

ENDINGS = [signal.SIGINT, signal.SIGTERM]


@contextmanager
def receiver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@contextmanager
def sent(within, count):
    """Count new UDP flows, their sockets open within the block; yields (sports, dport)."""
    senders = []
    with within(), receiver() as sink:
        for _ in range(count):
            senders.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            senders[-1].connect(sink.getsockname())
            senders[-1].send(b"x")
        yield [sender.getsockname()[1] for sender in senders], sink.getsockname()[1]
        for sender in senders:
            sender.close()


def no_traceback(program):
    assert not any("Traceback" in line for line in program.complaints), program.complaints


# Lines reach a pipe immediately if they are few, and in blocks if they are many.


def test_each_line_comes_at_once(tracked, within):
    with Program(tracked, "-p", "udp") as program:
        for count in range(1, 6):
            with sent(within, 1):
                with Stopwatch() as watch:
                    program.await_lines(count)
                assert watch.seconds < 0.3
            time.sleep(0.05)


def test_many_lines_come_in_blocks(tracked, flood, tmp_path):
    trace = tmp_path / "trace"
    with open(tmp_path / "out", "wb") as out:
        strace = ("strace", "-f", "-qq", "-e", "trace=write", "-e", "signal=none", "-o", str(trace))
        with Program(tracked, "-p", "udp", "--attribution", "off", stdout=out, prefix=strace, ready=False) as program:
            until(lambda: _traced_is_ready(program.pid))
            made = flood(20000, 20000)
            until(lambda: (tmp_path / "out").read_bytes().count(b"\n") >= made)
            os.kill(_child(program.pid), signal.SIGTERM)
            assert program.wait() == 0
    writes = len(re.findall(r"write\(1, ", trace.read_text()))
    assert writes < made / 5


def _child(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        found = children.read().split()
    return int(found[0]) if found else 0


def _traced_is_ready(pid):
    child = _child(pid)
    if not child:
        return False
    try:
        with open(f"/proc/{child}/status") as status:
            [caught] = [int(line.split()[1], 16) for line in status if line.startswith("SigCgt")]
    except FileNotFoundError:  # strace itself tries something out in a child of a moment
        return False
    return caught >> signal.SIGTERM - 1 & 1


# SIGINT and SIGTERM end it within a second, with everything written that was read.


@pytest.mark.parametrize("number", ENDINGS)
def test_signal_ends_it_when_idle(tracked, number):
    with Program(tracked) as program:
        status, seconds = program.end(number)
    assert (status, program.lines, program.complaints) == (0, [], [])
    assert seconds < 1


@pytest.mark.parametrize("number", ENDINGS)
def test_signal_writes_what_was_read(tracked, within, number):
    with Program(tracked, "-p", "udp") as program:
        with sent(within, 300) as (ports, _):
            program.await_all_read()
            status, seconds = program.end(number)
        assert status == 0 and seconds < 1
        no_traceback(program)
        assert {sport for _, sport, _ in program.flows()} == set(ports)


@pytest.mark.parametrize("number", ENDINGS)
def test_signal_ends_it_at_any_moment_of_the_start(tracked, number):
    for delay in (0.01, 0.03, 0.06, 0.09, 0.12, 0.2, 0.4):
        process = subprocess.Popen(inside(tracked, COMMAND), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # Before the first line of the program runs, Python itself may still answer with a traceback.
        until(lambda: b"nfct_fast" in open(f"/proc/{process.pid}/cmdline", "rb").read())
        until(lambda: _imports_have_begun(process.pid))
        time.sleep(delay)
        process.send_signal(number)
        output, complaints = process.communicate(timeout=SECONDS)
        assert (output, complaints) == (b"", b"")
        assert process.returncode in (0, -number)


def _imports_have_begun(pid):
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return "nfct_fast" in maps.read()
    except FileNotFoundError:
        return False


def test_signal_ends_it_when_nobody_reads_the_terminal(tracked, flood):
    master, slave = pty.openpty()
    with Program(tracked, "-p", "udp", stdout=slave) as program:
        flood(2000, 0)
        time.sleep(0.3)
        status, seconds = program.end()
        assert seconds < 1 and status == 1
        missing, why = program.complaints
        assert (
            0 < int(missing.split()[1]) < 2000
            and "received and not written" in missing
            and "output took nothing" in why
        )
    os.close(master)
    os.close(slave)


def test_a_slow_reader_gets_every_line(tracked, flood):
    read, write = os.pipe()
    with Program(tracked, "-p", "udp", "--attribution", "off", stdout=write) as program:
        os.close(write)
        made = flood(5000, 0)
        data = b""
        while data.count(b"\n") < made:
            time.sleep(0.0005)
            data += os.read(read, 4096)
        assert program.end()[0] == 0
    os.close(read)
    assert data.count(b"\n") == made


# A closed pipe ends it quietly, a full disk with one clear line.


def test_a_closed_pipe_ends_it_though_no_flow_comes(tracked):
    read, write = os.pipe()
    with Program(tracked, stdout=write) as program:
        os.close(write)
        os.close(read)
        assert program.wait(2) == 0
    assert program.complaints == []


def test_a_closed_pipe_ends_it_when_a_flow_comes(tracked, within):
    read, write = os.pipe()
    with Program(tracked, "-p", "udp", stdout=write) as program:
        os.close(write)
        with sent(within, 3):
            program.await_all_read()
            until(lambda: select.select([read], [], [], 0)[0])
            time.sleep(0.05)
            os.read(read, 4096)
            program.stop()  # or it ends before the flow comes
            os.close(read)
            with sent(within, 1):
                os.kill(program.pid, signal.SIGCONT)
                assert program.wait(2) == 0
    assert program.complaints == ["nfct-fast: 1 flows received and not written"]


def test_a_closed_socket_ends_it(tracked):
    ours, theirs = socket.socketpair()
    with Program(tracked, stdout=theirs) as program:
        theirs.close()
        ours.close()
        assert program.wait(2) == 0
    assert program.complaints == []


def test_a_full_device_ends_it_with_one_line(tracked, within):
    with open("/dev/full", "wb") as full, Program(tracked, "-p", "udp", stdout=full) as program:
        with sent(within, 1):
            assert program.wait(2) == 1
    assert program.complaints == [
        "nfct-fast: 1 flows received and not written",
        "nfct-fast: output: No space left on device",
    ]


def test_a_full_disk_ends_it_with_one_line(tracked, flood, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path], check=True)
    try:
        with open(tmp_path / "log", "wb") as log, Program(tracked, "-p", "udp", stdout=log) as program:
            flood(1000, 0)
            assert program.wait(5) == 1
        assert program.complaints[-1] == "nfct-fast: output: No space left on device"
        whole = (tmp_path / "log").read_text().split("\n")[:-1]
        assert len(whole) > 50 and all(LINE.fullmatch(line) for line in whole)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# Standard streams that are closed, full or stuck.


def test_a_closed_output_is_reported(tracked):
    result = subprocess.run(
        inside(tracked, ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND]), stderr=subprocess.PIPE, timeout=5
    )
    assert (result.returncode, result.stderr) == (1, b"nfct-fast: standard output is closed\n")


@pytest.mark.parametrize("closing", ["2>&-", "<&-", "<&- 2>&-", "2>/dev/full"])
def test_it_works_without_the_other_streams(netns, within, closing):
    # No rule uses conntrack until --track: there is something to complain of, nowhere to write it, and a flow to print.
    with Program(
        netns, "--track", "-p", "udp", "--debug", prefix=("sh", "-c", f'exec "$@" {closing}', "sh")
    ) as program:
        with sent(within, 1) as ([port], _):
            program.await_lines(1)
        assert program.end()[0] == 0
    [line] = program.lines
    assert f"/{port} > " in line


def test_complaints_nobody_reads_do_not_hold_it_up(netns, within):
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    with Program(netns, "--track", "-p", "udp", "--debug", stderr=write) as program:
        with sent(within, 1):
            program.await_lines(1)
        status, seconds = program.end()
    assert status == 0 and seconds < 1
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    "variables",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONUNBUFFERED": "1"}],
)
def test_the_environment_does_not_matter(tracked, within, variables):
    with Program(tracked, "-p", "udp", "-f", "€ {ev.dport} {info.comm}", env=os.environ | variables) as program:
        with sent(within, 1) as (_, dport):
            program.await_lines(1)
        assert program.end()[0] == 0
    with open("/proc/self/comm") as comm:
        assert program.lines == [f"€ {dport} {comm.read().strip()}"]


# Without the capability to receive events.


def test_without_the_capability_one_line_names_it(tracked):
    for arguments in ((), ("--track",)):
        result = subprocess.run(
            inside(tracked, ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *COMMAND, *arguments]),
            capture_output=True,
            text=True,
            timeout=5,
        )
        assert result.returncode == 1 and result.stdout == ""
        [line] = result.stderr.splitlines()
        assert "CAP_NET_ADMIN" in line


def test_without_root_one_line_names_the_capability(tracked):
    # To read is left to it: the tree that the tests run from may be closed to others.
    rights = "-all,+dac_read_search"
    result = subprocess.run(
        inside(
            tracked,
            [
                "setpriv",
                "--reuid=65534",
                "--clear-groups",
                f"--inh-caps={rights}",
                f"--ambient-caps={rights}",
                f"--bounding-set={rights}",
                *COMMAND,
            ],
        ),
        capture_output=True,
        text=True,
        timeout=5,
    )
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "CAP_NET_ADMIN" in line


# A full receive buffer never ends it.


def test_an_overrun_is_counted_and_reported(tracked, flood, within):
    with Program(tracked, "-p", "udp", "--attribution", "off", "--rcvbuf", "64K", "--rcvbuf-max", "64K") as program:
        program.stop()
        made = flood(3000, 0)
        os.kill(program.pid, signal.SIGCONT)
        until(lambda: program.complaints)
        with sent(within, 1) as ([port], _):
            until(lambda: any(f"/{port} > " in line for line in program.lines))
        status, seconds = program.end()
    assert status == 0
    printed = sum(" > 10.99." in line for line in program.lines)
    assert len(program.lines) == printed + 1
    lost = sum(int(line.split()[1]) for line in program.complaints if "events lost" in line)
    assert printed + lost == made


def test_what_is_lost_is_no_line(tracked, flood):
    """Nor is it hidden: it is reported immediately, even if no further event comes."""
    with Program(tracked, "-p", "udp", "--attribution", "off", "--rcvbuf", "64K", "--rcvbuf-max", "64K") as program:
        program.stop()
        made = flood(3000, 0)
        subprocess.run(inside(tracked, ["conntrack", "-F"]), check=True, capture_output=True)
        os.kill(program.pid, signal.SIGCONT)
        until(lambda: any("events lost" in line for line in program.complaints))
        assert program.end()[0] == 0
    assert all(" > 10.99." in line for line in program.lines)
    assert sum(int(line.split()[1]) for line in program.complaints if "events lost" in line) == made - len(
        program.lines
    )


# No process can forge a line or drive a terminal.

NASTY = [
    b"a\nb",
    b"\x1b[31mred\x1b]0;title\x07",
    b"\xc2\x9b31m",
    "\u202etxt.exe".encode(),
    b"\xff\xfe",
    b"back\\slash",
    b"tab\t",
    b"1: ipv4/udp 9.9.9.9/9 > 9.9.9.9/9 :: 1 0:0 / :: init",
]
SENDER = "import socket, sys, time; s = socket.socket(2, 2); s.connect(('127.0.0.1', 9)); s.send(b'x'); time.sleep(0.5)"


def test_names_are_escaped(tracked, within):
    with Program(tracked, "-p", "udp") as program:
        with Child(inside(tracked, [os.fsencode(sys.executable), b"-c", SENDER.encode(), *NASTY])) as sender:
            program.await_lines(1)
            sender.kill()
        assert program.end()[0] == 0
    [line] = program.lines
    assert LINE.fullmatch(line)["pid"] == str(sender.pid)
    assert line.isprintable()
    assert line.endswith(
        r" a\nb \x1b[31mred\x1b]0;title\x07 \u009b31m \u202etxt.exe \xff\xfe back\\slash tab\t "
        "1: ipv4/udp 9.9.9.9/9 > 9.9.9.9/9 :: 1 0:0 / :: init"
    )


def test_comm_and_exe_are_escaped(tracked, tmp_path):
    copy = os.fsencode(tmp_path) + b"/a\n \x1b\xff"
    os.symlink(sys.executable, copy)
    name = b"c\n \x1b\xff"
    code = f"open('/proc/self/comm', 'wb').write({name!r}); {SENDER}"
    with Program(tracked, "-p", "udp", "-f", "{info.comm}|{info.pid}") as program:
        with Child(inside(tracked, [sys.executable, "-c", code])) as sender:
            program.await_lines(1)
            sender.kill()
        program.end()
    assert program.lines == [rf"c\n\x20\x1b\xff|{sender.pid}"]


def test_a_long_command_line_is_cut(tracked):
    argument = "y" * (128 * 1024 - 1)  # the longest there is: MAX_ARG_STRLEN
    with Program(tracked, "-p", "udp", "-f", "{info.cmdline}") as program:
        with Child(inside(tracked, [sys.executable, "-c", SENDER, argument])) as sender:
            program.await_lines(1)
            sender.kill()
        program.end()
    whole = " ".join([sys.executable, "-c", SENDER, argument])
    assert program.lines == [whole[:4096] + "..."]


def test_loopback_is_not_needed(tracked):
    ip("addr", "flush", "dev", "lo", netns=tracked)
    with Program(tracked) as program:
        assert program.end()[0] == 0
    assert len(program.complaints) == 1 and "--track" in program.complaints[0]
