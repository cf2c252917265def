"""Lines, columns and JSON, some of their fields, and colour: only on a terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import termios

import pytest

from support.cli import Program, run, until
from support.flows import send

SGR = re.compile(r"\x1b\[[0-9;]*m")


def printed(tracked, within, *arguments):
    with Program(tracked, "-p", "udp", *arguments) as program:
        with within(), send(7):
            program.await_lines(2 if "--columns" in arguments else 1)
        assert program.end()[0] == 0
    assert program.complaints == []
    return program.lines


def on_terminal(tracked, within, *arguments, columns=80, environment=()):
    """What is printed to a terminal of that width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    variables |= {"TERM": "xterm"} | dict(environment)
    text = b""

    def read():
        nonlocal text
        os.set_blocking(master, False)
        try:
            text += os.read(master, 65536)
        except BlockingIOError:
            pass
        return text.count(b"\n") >= (2 if "--columns" in arguments else 1)

    with Program(tracked, "-p", "udp", *arguments, stdout=slave, env=variables) as program:
        with within(), send(7):
            until(read, what="a line")
        assert program.end()[0] == 0
    os.close(slave)
    os.close(master)
    return text.decode().replace("\r\n", "\n").splitlines()


def test_the_default_is_a_line(tracked, within):
    [line] = printed(tracked, within, "--line")
    assert " > 127.0.0.1/7 :: " in line and "\x1b" not in line


def test_columns(tracked, within):
    header, line = printed(tracked, within, "--columns")
    names = header.split()
    assert names == ["TIME", "PROTO", "SRC", "SPORT", "DST", "DPORT", "PID", "USER", "COMM", "UNIT"]
    row = dict(zip(names, line.split()))
    assert (row["PROTO"], row["DST"], row["DPORT"], row["USER"]) == ("ipv4/udp", "127.0.0.1", "7", "root")
    for name in ("SRC", "DST", "COMM"):
        assert line.index(row[name]) == header.index(name) or name == "DST"


def test_chosen_columns(tracked, within):
    header, line = printed(tracked, within, "--columns", "--fields", "dport,comm,owner.pid,peer.pid")
    assert header.split() == ["DPORT", "COMM", "PID", "PEER.PID"]
    assert line.split()[0] == "7" and line.split()[2] == str(os.getpid())


def test_chosen_fields_are_separated_by_tabs(tracked, within):
    [line] = printed(tracked, within, "--fields", "ts,dst,ev.dport,pid,comm", "-t", "%Y")
    year, dst, dport, pid, comm = line.split("\t")
    assert year.isdecimal() and (dst, dport, pid) == ("127.0.0.1", "7", str(os.getpid()))


def test_chosen_keys_of_json(tracked, within):
    [line] = printed(
        tracked, within, "--json", "--fields", "owner.comm,pid,proto,original.dst,dport,reply,community_id"
    )
    row = json.loads(line)
    assert list(row) == ["proto", "original", "reply", "community_id", "owner"]
    assert row["original"] == {"dst": "127.0.0.1", "dport": 7}
    assert set(row["owner"]) == {"pid", "comm"} and row["owner"]["pid"] == os.getpid()
    assert row["reply"]["sport"] == 7


def test_a_name_that_is_no_text_comes_with_its_bytes(tracked, within, tmp_path):
    with Program(tracked, "-p", "udp", "--json", "--fields", "comm") as program:
        name = b'x"},{\xff'
        with open("/proc/self/comm", "rb") as file:
            before = file.read().rstrip(b"\n")
        try:
            with open("/proc/self/comm", "wb") as file:
                file.write(name)
            with within(), send(7):
                [line] = program.await_lines(1)
        finally:
            with open("/proc/self/comm", "wb") as file:
                file.write(before)
        assert program.end()[0] == 0
    assert set(json.loads(line)["owner"]) == {"comm", "comm_base64"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fields", "dst,dprt"], "dport"),
        (["--json", "--fields", "owner.com"], "owner.comm"),
        (["--fields", ""], "not a list of fields"),
        (["--fields", "dst,dst"], "twice"),
        (["--fields", "dst", "-f", "{ev.dst}"], "-f"),
        (["--columns", "-f", "{ev.dst}"], "-f"),
        (["--columns", "--json"], "not allowed with"),
        (["--schema", "ecs", "--fields", "dst"], "--schema"),
        (["--color", "blue"], "invalid choice"),
        (["--syslog=udp:"], "none of"),
        (["--syslog=tcp:host:99999"], "none of"),
        (["--syslog=unix:log"], "none of"),
        (["--journal=../x"], "not the name of a journal namespace"),
        (["-o", "-", "-o", "-", "--journal"], "twice"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(netns, arguments, said):
    done = run(netns, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    [line] = done.stderr.decode().splitlines()
    assert said in line and "Traceback" not in line


# On a terminal


def test_a_terminal_gets_colour_and_columns_that_fit(tracked, within):
    header, line = on_terminal(tracked, within, "--columns", "--fields", "dst,dport,pid,exe,cmdline", columns=60)
    assert SGR.search(header) and SGR.search(line)
    plain = SGR.sub("", line)
    assert len(plain) == 60 and plain.endswith("…") and len(SGR.sub("", header)) <= 60


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colour_where_none_is_wanted(tracked, within, environment):
    [line] = on_terminal(tracked, within, environment=environment)
    assert "\x1b" not in line
    [line] = on_terminal(tracked, within, "--color", "always", environment=environment)
    assert "\x1b" in line


def test_colour_does_not_reach_a_file(tracked, within, tmp_path):
    [line] = on_terminal(tracked, within, "-o", "-", "-o", tmp_path / "log")
    assert SGR.sub("", line) + "\n" == (tmp_path / "log").read_text() and "\x1b" in line
