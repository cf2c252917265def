"""Flows written to files: beside standard output, across log rotation, on a full disk, and not into others' files."""

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from support.cli import Program, run, until
from support.flows import send

JSON = ("-p", "udp", "--attribution", "off", "--json")
LOGROTATE = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin")
NOT_WRITTEN = "flows not written to "


def lines_of(path):
    return path.read_text().splitlines()


def missing(program, name):
    """How many flows were not written to this output, by what is said at the end."""
    said = [line for line in program.complaints if f"{NOT_WRITTEN}{name}:" in line and not line.endswith("so far")]
    return int(said[-1].split()[1]) if said else 0


def test_a_file_is_written_instead_of_standard_output(tracked, within, tmp_path):
    log = tmp_path / "log"
    log.write_text("an older line")
    with Program(tracked, "-p", "udp", "-o", log) as program:
        with within(), send(7), send(8):
            until(lambda: len(lines_of(log)) == 3, what="two lines")
        assert program.end()[0] == 0
    assert lines_of(log)[0] == "an older line" and program.lines == program.complaints == []


def test_several_outputs_get_the_same_lines(tracked, within, tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    with Program(tracked, "-p", "udp", "-o", "-", *[word for file in files for word in ("-o", file)]) as program:
        with within(), send(7), send(8):
            program.await_lines(2)
        status, seconds = program.end()
    assert status == 0 and seconds < 1 and program.complaints == []
    for file in files:
        assert lines_of(file) == program.lines
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("options", [(), ("--no-sandbox",), ("--attribution", "off")], ids=str)
def test_hangup_has_a_file_opened_again(tracked, within, tmp_path, options):
    """The directory is root's alone, and the program has stopped being root."""
    tmp_path.chmod(0o700)
    log, old = tmp_path / "log", tmp_path / "log.1"
    with Program(tracked, "-p", "udp", "-o", log, *options) as program:
        with within(), send(7):
            until(lambda: len(lines_of(log)) == 1)
            log.rename(old)
            program.process.send_signal(signal.SIGHUP)
            until(log.exists, what="a new file")
        with within(), send(8):
            until(lambda: len(lines_of(log)) == 1)
        assert program.end()[0] == 0
    assert len(lines_of(old)) == 1 and program.complaints == []


def test_hangup_ends_it_if_there_is_no_file(tracked):
    with Program(tracked) as program:
        assert program.end(signal.SIGHUP)[0] == 0


def test_a_file_that_cannot_be_opened_again(tracked, within, tmp_path):
    log, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    with Program(tracked, "-p", "udp", "-o", log) as program:
        log.rename(tmp_path / "log.1")
        log.symlink_to(elsewhere)
        program.process.send_signal(signal.SIGHUP)
        until(lambda: program.complaints)
        with within(), send(7):
            until(lambda: len(lines_of(tmp_path / "log.1")) == 1)
        assert program.end()[0] == 0
    [complaint] = program.complaints
    assert "is not reopened" in complaint and not elsewhere.exists()


ROTATION = """\
{log} {{
    daily
    rotate 7
    create 0600 root root
    compress
    delaycompress
    postrotate
        kill -HUP {pid}
    endscript
}}
"""


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed")
def test_logrotate(tracked, within, tmp_path):
    log, rules = tmp_path / "flows.log", tmp_path / "rules"
    tmp_path.chmod(0o755)  # logrotate refuses a directory that others may write
    with Program(tracked, "-p", "udp", "-o", log) as program:
        rules.write_text(ROTATION.format(log=log, pid=program.pid))
        rules.chmod(0o644)
        for number in range(3):
            with within(), send(7 + number):
                until(lambda: log.exists() and len(lines_of(log)) == 1)
            before = log.stat().st_ino
            subprocess.run([LOGROTATE, "-f", "-s", tmp_path / "state", rules], check=True, capture_output=True)
            assert log.stat().st_ino != before
            until(lambda: _has_open(program.pid, log), what="the new file")
        assert program.end()[0] == 0
    assert program.complaints == []
    assert sorted(path.name for path in tmp_path.glob("flows.log*")) == [
        "flows.log",
        "flows.log.1",
        "flows.log.2.gz",
        "flows.log.3.gz",
    ]


def _has_open(pid, path):
    found = path.stat()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            one = os.stat(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        if (one.st_dev, one.st_ino) == (found.st_dev, found.st_ino):
            return True
    return False


# Nobody else can choose what is written to, or read what is written.


@pytest.mark.parametrize("what", ["link", "fifo", "other", "two names", "directory", "no directory"])
def test_what_is_no_file_of_ours_is_refused_in_one_line(netns, tmp_path, what):
    log = tmp_path / "log"
    if what == "link":
        log.symlink_to(tmp_path / "elsewhere")
    elif what == "fifo":
        os.mkfifo(log)
    elif what == "other":
        log.touch()
        os.chown(log, 4321, 4321)
    elif what == "two names":
        log.touch()
        os.link(log, tmp_path / "second")
    elif what == "directory":
        log.mkdir()
    else:
        log = tmp_path / "none" / "log"
    done = run(netns, "-o", log)
    assert done.returncode == 1 and done.stdout == b""
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("nfct-fast: ") and str(log.name) in line
    assert not (tmp_path / "elsewhere").exists()


# A full disk: every line is written in full, or counted; and there are more when there is room again.


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk(tracked, flood, small_disk):
    log, filler = small_disk / "log", small_disk / "filler"
    with Program(tracked, *JSON, "-o", log) as program:
        made = flood(5000, 0)
        until(lambda: program.complaints, what="the complaint")
        filler_was = log.stat().st_size
        assert "No space left on device" in program.complaints[0]
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        until(lambda: log.stat().st_size > filler_was + 100_000, what="more lines")
        program.await_all_read()
        until(lambda: len(lines_of(log)) == made, what="all lines")  # the rest waited in the buffer
        assert program.end()[0] == 0
    assert not filler.exists()
    assert {json.loads(line)["type"] for line in lines_of(log)} == {"NEW"}
    assert len(program.complaints) == 1


def test_a_disk_that_stays_full(tracked, flood, small_disk):
    log = small_disk / "log"
    with Program(tracked, *JSON, "-o", log) as program:
        made = flood(5000, 0)
        until(lambda: program.complaints)
        program.await_all_read()
        status, seconds = program.end()
    assert status == 0 and seconds < 2
    *whole, rest = log.read_bytes().split(b"\n")
    assert all(json.loads(line)["type"] == "NEW" for line in whole)
    assert len(whole) + missing(program, log) == made
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    with Program(tracked, *JSON, "-o", log) as program:  # a line that was cut is ended
        assert program.end()[0] == 0
    assert not rest or log.read_bytes().endswith(b"\n")


# An output that nobody reads delays no other one.


def test_a_stopped_reader_delays_nobody(tracked, flood, tmp_path):
    log = tmp_path / "log"
    read, write = os.pipe()
    with Program(tracked, *JSON, "-o", "-", "-o", log, stdout=write) as program:
        os.close(write)
        made = flood(60_000, 20_000)
        until(lambda: len(lines_of(log)) == made, what="all lines in the file")
        until(lambda: any(line.endswith("so far") for line in program.complaints), what="the complaint")
        text = b""
        while text.count(b'"LOST"') == 0:  # it is read again, and told how much is missing
            text += os.read(read, 1 << 20)
            if text.count(b"\n") > 10_000:
                # Each to another address, since its process may get a source port that was used before.
                made += flood(1, 0, address=f"fd99::{made:x}")
        until(lambda: len(lines_of(log)) == made)
        status, _ = program.end()
        while more := os.read(read, 1 << 20):
            text += more
    os.close(read)
    assert status == 0
    rows = [json.loads(line) for line in text.decode().splitlines()]
    lost = [row["lost"] for row in rows if row["type"] == "LOST"]
    assert len(rows) - len(lost) + missing(program, "standard output") == made
    assert sum(lost) <= missing(program, "standard output")
    assert missing(program, log) == 0


def test_a_recording_waits_for_its_outputs(tracked, flood, tmp_path):
    """It can wait, so that nothing is left out however large it is."""
    recording, log = tmp_path / "recording", tmp_path / "log"
    with Program(tracked, "-p", "udp", "--attribution", "off", "--record", recording, "-o", log) as program:
        made = flood(50_000, 50_000)
        program.await_all_read()
        assert program.end()[0] == 0
    assert len(lines_of(log)) == made
    log.unlink()
    done = run(tracked, "--json", "--replay", recording, "-o", log)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(lines_of(log)) == made
    # A slow reader gets the end, too, as long as nobody asks the program to end.
    log.unlink()
    read, write = os.pipe()
    arguments = ("--json", "--replay", recording, "-o", "-", "-o", log)
    with Program(tracked, *arguments, stdout=write, ready=False) as program:
        os.close(write)
        until(lambda: log.exists() and log.stat().st_size, what="the first lines")
        time.sleep(1)  # longer than outputs have at an end that was asked for
        text = bytearray()
        while part := os.read(read, 1 << 20):
            text += part
        assert program.wait() == 0
    os.close(read)
    assert program.complaints == [] and text.count(b"\n") == len(lines_of(log)) == made


# The process that opens files anew


def helper_of(pid):
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text() == "nfct-outputs\n":
            return int(child)
    raise AssertionError("there is no such process")


def test_the_helper_keeps_one_right_and_ends_with_the_program(tracked, tmp_path):
    with Program(tracked, "-o", tmp_path / "log") as program:
        helper = helper_of(program.pid)
        status = Path(f"/proc/{helper}/status").read_text()
        sets = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("CapPrm", "CapBnd"))]
        assert sets == [1 << 1] * 2  # CAP_DAC_OVERRIDE
        assert "NoNewPrivs:\t1" in status
        # Its own standard descriptors and the socket; and the directory.
        assert len(os.listdir(f"/proc/{helper}/fd")) == 5
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        until(lambda: not is_alive(helper), what="the end of the helper")


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_without_the_helper_the_file_stays_open(tracked, within, tmp_path):
    log = tmp_path / "log"
    with Program(tracked, "-p", "udp", "-o", log) as program:
        os.kill(helper_of(program.pid), signal.SIGKILL)
        program.process.send_signal(signal.SIGHUP)
        until(lambda: program.complaints, what="the complaint")
        with within(), send(7):
            until(lambda: len(lines_of(log)) == 1)
        assert program.end()[0] == 0
    assert program.complaints == [f"nfct-fast: {log} is not reopened: the helper process that opens it is gone"]
