"""However the program ends, except by SIGKILL, every flow is written or counted as missing."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from support.cli import LINE, Program, until
from support.stopwatch import Stopwatch

MADE = 60_000
UDP = ("-p", "ipv4/udp", "--attribution", "off")


def small_pipe():
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    return read, write


def rest(read):
    """What is in a pipe that nobody writes to any more."""
    data = b""
    while part := os.read(read, 1 << 16):
        data += part
    return data


def counted(complaints):
    """Flows that standard error says are missing."""
    number = re.compile(r"nfct-fast: (\d+) (?:or more )?(?:events lost|flows received and not written)")
    return sum(int(match[1]) for match in map(number.match, complaints) if match)


def whole_lines(data, form=LINE):
    """Of the lines, all but the last must be whole."""
    lines = data.decode().split("\n")
    assert all(form.fullmatch(line) for line in lines[:-1])
    return len(lines) - 1


def blocked(netns, flood, *options):
    """The program, with 60,000 flows received of which the pipe took a few: nobody reads it."""
    read, write = small_pipe()
    program = Program(netns, *UDP, *options, stdout=write)
    os.close(write)
    return read, program, flood(MADE, 0)


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGTERM], [signal.SIGINT], [signal.SIGHUP], [signal.SIGTERM] * 2, [signal.SIGTERM, signal.SIGINT] * 5],
)
def test_nobody_reads_the_pipe(tracked, flood, numbers):
    read, program, made = blocked(tracked, flood)
    with program, Stopwatch() as watch:
        for number in numbers:
            program.process.send_signal(number)
            time.sleep(0.1 if len(numbers) == 2 else 0)
        assert program.wait() == 1
    assert whole_lines(rest(read)) + counted(program.complaints) == made
    assert watch.seconds < 1
    assert any("output took nothing" in line for line in program.complaints)
    os.close(read)


def test_sigterm_while_events_are_lost(tracked, flood):
    """What the kernel dropped is in the sum, too."""
    read, write = small_pipe()
    with Program(tracked, *UDP, "--rcvbuf", "1M", "--rcvbuf-max", "1M", stdout=write) as program:
        os.close(write)
        made = flood(MADE, 0)
        status, seconds = program.end()
    assert status == 1 and seconds < 1
    assert whole_lines(rest(read)) + counted(program.complaints) == made
    os.close(read)


def test_a_large_receive_buffer_is_counted_in_time(tracked, flood):
    """All of it is counted, or the count is said to be a lower bound."""
    read, write = small_pipe()
    with Program(tracked, *UDP, "--rcvbuf", "256M", stdout=write) as program:
        os.close(write)
        made = sum(flood(60_000, 0, address=f"10.99.{number}.1") for number in range(1, 5))
        status, seconds = program.end()
    assert status == 1 and seconds < 1.2
    known = whole_lines(rest(read)) + counted(program.complaints)
    assert known == made or 1 < known < made and any("or more flows received" in line for line in program.complaints)
    os.close(read)


def test_the_count_is_whole_though_the_machine_stands_still(tracked, flood):
    """Only the program's own work is limited: as when a hypervisor gives the processors to others for a second."""
    read, write = small_pipe()
    with Program(tracked, *UDP, "--rcvbuf", "256M", stdout=write) as program:
        os.close(write)
        made = sum(flood(60_000, 0, address=f"10.99.{number}.1") for number in range(1, 4))
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)  # it waits 0.3 s for room in the ring, which has less than 180,000
        program.stop()
        time.sleep(1)
        program.process.send_signal(signal.SIGCONT)
        assert program.wait() == 1
    assert whole_lines(rest(read)) + counted(program.complaints) == made
    os.close(read)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_slow_reader_learns_it_from_json(tracked, flood, number):
    """The last record says how many are missing, after whole lines."""
    read, program, made = blocked(tracked, flood, "--json")
    taken = []

    def take():
        while part := os.read(read, 4096):
            taken.append(part)
            time.sleep(0.002)

    reader = threading.Thread(target=take)
    with program:
        reader.start()
        status, seconds = program.end(number)
        assert status == 1 and seconds < 1
    reader.join()
    records = [json.loads(line) for line in b"".join(taken).splitlines()]
    kinds = [record["type"] for record in records]
    assert kinds.count("NEW") + records[-1]["lost"] == made and kinds[-1] == "LOST"
    assert counted(program.complaints) == records[-1]["lost"] and set(kinds[:-1]) == {"NEW"}
    os.close(read)


def test_a_reader_that_goes_on_gets_all(tracked, flood):
    read, program, made = blocked(tracked, flood, "-f", "{ev.dport}")
    with program:
        with open(read, "rb") as stream:
            taken = []
            reader = threading.Thread(target=lambda: taken.append(stream.read()))
            reader.start()
            assert program.end()[0] == 0
            reader.join()
    assert program.complaints == [] and taken[0].count(b"\n") == made


@pytest.mark.parametrize("json_lines", [False, True])
def test_the_reader_goes_away(tracked, flood, json_lines):
    read, program, made = blocked(tracked, flood, *(["--json"] if json_lines else []))
    with program:
        data = os.read(read, 1 << 16) + os.read(read, 1 << 16)
        os.kill(program.pid, signal.SIGSTOP)  # so that nothing is written that nobody reads
        until(lambda: open(f"/proc/{program.pid}/stat").read().rsplit(") ", 1)[1][0] == "T")
        os.set_blocking(read, False)
        try:
            while part := os.read(read, 1 << 16):
                data += part
        except BlockingIOError:
            pass
        os.close(read)
        os.kill(program.pid, signal.SIGCONT)
        assert program.wait() == 0
    assert data.count(b"\n") + counted(program.complaints) == made
    assert len(program.complaints) == 1


def test_a_full_disk(tracked, flood, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with open(tmp_path / "log", "wb") as log, Program(tracked, *UDP, stdout=log) as program:
            made = flood(MADE, 0)
            assert program.wait() == 1
        # Flows made after it had ended do not count.
        written = whole_lines((tmp_path / "log").read_bytes())
        assert program.complaints[-1] == "nfct-fast: output: No space left on device"
        assert 5_000 < written and 0 < counted(program.complaints) <= made - written
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_after_the_last_flow(tracked, flood, tmp_path):
    """All were made before it ended: then the sum is exact."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with open(tmp_path / "log", "wb") as log, Program(tracked, *UDP, stdout=log) as program:
            os.kill(program.pid, signal.SIGSTOP)
            made = flood(MADE, 0)
            os.kill(program.pid, signal.SIGCONT)
            assert program.wait() == 1
        assert whole_lines((tmp_path / "log").read_bytes()) + counted(program.complaints) == made
        assert program.complaints[-1] == "nfct-fast: output: No space left on device"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# The program, with a thread that makes the reading thread fail on request, by replacing its epoll descriptor.
FAILING = """
import os, sys, threading
from nfct_fast.__main__ import main


def epoll_of_reader():
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "eventpoll" in os.readlink(f"/proc/self/fd/{fd}"):
                targets = [line.split()[1] for line in open(f"/proc/self/fdinfo/{fd}") if line.startswith("tfd:")]
                if any(os.readlink(f"/proc/self/fd/{target}").startswith("socket:") for target in targets):
                    return int(fd)
        except OSError:
            pass


def spoil():
    sys.stdin.readline()
    os.dup2(os.open(os.devnull, os.O_RDONLY), epoll_of_reader())


threading.Thread(target=spoil, daemon=True).start()
sys.exit(main(sys.argv[1:]))
"""


class Failing(Program):
    """The same program, whose reading fails once fail() was called."""

    def __init__(self, netns, *arguments, **options):
        super().__init__(netns, *arguments, stdin=subprocess.PIPE, command=[sys.executable, "-c", FAILING], **options)

    def fail(self):
        self.process.stdin.write(b"now\n")
        self.process.stdin.close()


def test_an_error_of_the_reading_thread(tracked, flood, tmp_path):
    """What the socket holds then is read and written all the same."""
    with open(tmp_path / "log", "wb") as log, Failing(tracked, *UDP, "--json", stdout=log) as program:
        made = flood(1_000, 0)
        program.fail()
        made += flood(MADE, 0, address="10.99.2.1")
        assert program.wait() == 1
    assert "receiving conntrack events" in program.complaints[-1]
    numbers = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    heard = [record["original"]["dport"] for record in numbers]
    assert len(numbers) + counted(program.complaints) <= made
    assert heard[:1_000] == list(range(1024, 2024)) and heard[1_000:] == list(range(1024, 1024 + len(heard) - 1_000))


def test_an_error_of_the_reading_thread_with_much_still_queued(tracked, flood):
    read, write = small_pipe()
    with Failing(tracked, *UDP, stdout=write) as program:
        os.close(write)
        made = flood(MADE, 0)
        program.fail()
        time.sleep(1.5)  # it looks at its epoll again once there is room, or a second is over
        data = rest(read)
        assert program.wait() == 1
    assert whole_lines(data) + counted(program.complaints) == made
    assert "receiving conntrack events" in program.complaints[-1]
    os.close(read)


def test_the_last_lines_of_a_long_life(tracked, flood):
    """During a flood: from the first flow to the last one received, none is missing without being counted."""
    with Program(tracked, *UDP, "-f", "{ev.dport}") as program:
        made = []
        sender = threading.Thread(target=lambda: made.append(flood(MADE, 40_000)))
        sender.start()
        program.await_lines(10_000)
        status, seconds = program.end()
        sender.join()
    assert status == 0 and seconds < 1 and program.complaints == []
    numbers = list(map(int, program.lines))
    assert numbers == list(range(1024, 1024 + len(numbers))) and len(numbers) < made[0]
