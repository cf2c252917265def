"""Whatever a file holds: it is played, or refused with the place, and nothing else happens."""

import json
import random
import struct
import subprocess
import sys

import pytest

from nfct_fast import Conntrack, Lost, RecordingError
from nfct_fast.replay.recording_host import MAGIC
from support.cli import COMMAND, SECONDS, until
from support.events import saved
from support.recordings import ABOUT, CHUNK, FLOW, HEADER, HOST, LOSS, PROCESS, chunk, flow, owner, process, whole


@pytest.fixture
def play(tmp_path):
    """Plays bytes: all that came, and the refusal or None."""

    def played(data):
        file = tmp_path / "file"
        file.write_bytes(data)
        items = []
        try:
            with Conntrack(replay=file, on_loss="yield", events=("NEW", "UPDATE", "DESTROY")) as conntrack:
                for item in conntrack:
                    items.append(item)
        except RecordingError as error:
            assert str(file) in str(error)
            return items, str(error)
        return items, None

    return played


def sample():
    messages, _ = saved()
    chunks = [process(0), process(1, comm=b"\xff\n", ancestors=[(9, b"sh"), (8, b"sshd")])]
    for number, message in enumerate(messages):
        chunks.append(flow(message, owner(1 + number % 2, [2, 1]), owner(reason=12), time=10**18 + number))
    chunks.append(chunk(LOSS, struct.pack("=qqQQII", 10**18, 0, 5, 3, 1, 0)))
    return whole(*chunks, losses=1), len(messages)


def test_what_is_whole(play):
    data, count = sample()
    items, refusal = play(data)
    assert refusal is None and len(items) == count + 1
    assert items[-1] == Lost(3, None, 10**18, True, 5)
    first, second = items[0].owner, items[1].owner
    assert (first.process.comm, first.process.unit, first.process.cmdline) == ("curl", "a.service", ("curl", "-s"))
    assert (first.process.user, first.process.group, first.process.start) == ("joe", None, 1e9 + 0.77)
    assert [one.comm for one in second.process.ancestors] == ["sh", "sshd"] and len(second.processes) == 3


@pytest.mark.parametrize("length", [0, 1, 8, 15])
def test_no_recording_at_all(play, length):
    assert "not a recording" in play(sample()[0][:length])[1]
    assert "not a recording" in play(b"#!/bin/sh\necho a longer text\n")[1]


def test_another_version_or_byte_order(play):
    data, _ = sample()
    assert "reads no format above 2" in play(HEADER.pack(MAGIC, 3, 0x01020304) + data[16:])[1]
    items, refusal = play(HEADER.pack(MAGIC, 1, 0x01020304) + data[16:])  # an older one
    assert refusal is None and items == play(data)[0]
    assert "byte order" in play(HEADER.pack(MAGIC, 2, 0x04030201) + data[16:])[1]


@pytest.mark.parametrize(
    "about", [None, [], {}, {**ABOUT, "host": 1}, {**ABOUT, "boot_id": "é" * 32}, {**ABOUT, "boot_time": "x"}]
)
def test_a_host_that_cannot_be(play, about):
    data = HEADER.pack(MAGIC, 1, 0x01020304) + chunk(HOST, json.dumps(about).encode())
    for one in (data, data[:16], data[:26]):
        assert "at byte 16" in play(one)[1]


def test_cut_off_anywhere(play):
    """What is there is told first."""
    data, count = sample()
    chance = random.Random(1)
    for length in sorted(chance.sample(range(200, len(data)), 60)):
        items, refusal = play(data[:length])
        assert len(items) <= count + 1 and "cut off" in refusal and " at byte " in refusal


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ([chunk(9, b"x")], "no such chunk"),
        ([chunk(0, b"")], "no such chunk"),
        ([CHUNK.pack(1 << 31, FLOW)], "no such chunk"),
        ([chunk(PROCESS, b"x" * 10)], "process that is too short"),
        ([process(2048)], "process that cannot be"),
        ([process(0)[:-1] + b""], None),
        ([flow(b"x" * 100, owner(), owner())], "cannot be decoded"),
        ([flow(saved()[0][0], owner(5), owner())], "process is not there"),
        ([flow(saved()[0][0], owner(0, [5]), owner())], "process is not there"),
        ([flow(saved()[0][0], owner(5000), owner())], "process is not there"),
        ([flow(saved()[0][0], owner(reason=99), owner())], "owner that cannot be"),
        ([flow(saved()[0][0], owner())], "flow that is too short"),
        ([flow(saved()[0][0], owner(), owner(), owner())], "flow that is too long"),
        ([chunk(LOSS, b"")], "loss of another size"),
    ],
)
def test_what_cannot_be(play, chunks, problem):
    _, refusal = play(whole(*chunks))
    assert (problem or "") in refusal and " at byte " in refusal


def test_flows_that_are_missing(play):
    data = saved()[0][0]
    assert "flows are missing" in play(whole(flow(data, owner(), owner()), flows=2))[1]


def test_the_program_says_so_in_one_line(tmp_path):
    data, count = sample()
    for content, lines in ((b"text", 0), (data[:-30], count)):
        (tmp_path / "file").write_bytes(content)
        arguments = [*COMMAND, "--replay", tmp_path / "file"]
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS)
        assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1 and "file" in ended.stderr
        assert (ended.stdout != "") == bool(lines)
    ended = subprocess.run([*COMMAND, "--replay", tmp_path / "no"], capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 1 and "No such file" in ended.stderr


FUZZ = """
import random, sys
from nfct_fast import Conntrack, RecordingError
data, file = bytearray(open(sys.argv[1], "rb").read()), sys.argv[2]
for seed in range(int(sys.argv[3])):
    chance = random.Random(seed)
    mutant = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, size = chance.randrange(16, len(mutant)), chance.choice((1, 1, 2, 4, 8))
        mutant[at:at + size] = chance.choice((bytes(size), b"\\xff" * size, chance.randbytes(size), b"", mutant[:size]))
    open(file, "wb").write(mutant)
    try:
        with Conntrack(replay=file, on_loss="yield") as conntrack:
            for item in conntrack:
                repr(item)
                if hasattr(item, "owner"):
                    [(p.comm, p.cmdline, p.unit, p.ancestors, p.exe) for p in item.owner.processes], item.owner.cgroup
                    item.reply, item.status, item.owner.reason, item.peer and item.peer.match, item.direction
    except RecordingError:
        pass
print("done")
"""


def test_mutations(tmp_path):
    """In a process of its own: nothing but an exception of ours may end it."""
    (tmp_path / "whole").write_bytes(sample()[0])
    command = [sys.executable, "-X", "faulthandler", "-c", FUZZ, tmp_path / "whole", tmp_path / "mutant", "1500"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


def test_a_pipe_and_a_folder_are_no_recordings(play, tmp_path):
    for path in ("/dev/zero", tmp_path):
        with pytest.raises((RecordingError, OSError)):
            Conntrack(replay=path)
    until(lambda: True)
