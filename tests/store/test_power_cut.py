"""After a power cut every committed flow is there, and the files are sound."""

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys

import pytest

from nfct_fast.store.hour_file import connect
from nfct_fast.store.schema import store_files
from support.events import saved
from support.power_cut import STRACE, Disk, operations
from support.recordings import beginning, flow, owner, process

HOUR = 3600 * 10**9
BEGAN = 10**18 - 10**18 % HOUR
COMMITS, EACH = 60, 40
# Commits each block of the recording as it comes, and tells how many flows are stored.
WRITE = """
import os, sys
from nfct_fast.store import hour_file
from nfct_fast.store.rows import RowMaker
hour_file._SETTINGS += ("PRAGMA wal_autocheckpoint = 30",)    # so that there are many, in little time
directory, recording, size = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3])
fd, end = os.pipe()
maker, file, stored = RowMaker(fd), None, 0
blocks = [int(one) for one in sys.argv[4].split(",")]
for first, last in zip(blocks, blocks[1:]):
    os.write(end, recording[first:last])
    maker.read()
    while (hour := maker.take(None if file is None else file.rows)) is not None:
        file = hour_file.HourFile(directory, hour, maker.beginning, hour_file.Claims(), print)
    stored += file.commit()
    os.write(1, b"MARK %d\\n" % stored)
file.close()
"""


def test_nothing_committed_is_lost(tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("needs strace, which tells of the writes")
    message = saved()[0][0]
    data, blocks = beginning(), [0]
    for number in range(COMMITS):
        data += process(number, comm=b"p%d" % number)
        for one in range(EACH):
            data += flow(message, owner(1 + number), owner(), time=BEGAN + number * EACH + one)
        blocks.append(len(data))
    store, log = tmp_path / "store", tmp_path / "log"
    store.mkdir()
    (tmp_path / "recording").write_bytes(data)
    command = [*STRACE, "-o", log, sys.executable, "-c", WRITE, store, tmp_path / "recording", str(EACH)]
    subprocess.run([*command, ",".join(map(str, blocks))], check=True, stdout=subprocess.DEVNULL)
    done = list(operations(log, store))
    kinds = [operation[0] for operation in done]
    assert kinds.count("mark") == COMMITS and kinds.count("sync") > COMMITS
    chance = random.Random(5)
    cuts = set(chance.sample(range(kinds.index("mark"), len(done)), 60))
    disk, committed = Disk(), 0
    for at, operation in enumerate(done):
        if operation[0] == "mark":
            committed = operation[1]
        else:
            disk.do(*operation)
        if at in cuts:
            check(disk, chance, tmp_path / f"cut{at}", store, committed)


def check(disk, chance, place, store, committed):
    place.mkdir()
    disk.cut(chance, place, store)
    [file] = store_files(place)
    with contextlib.closing(connect(file.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        times = [time - BEGAN for [time] in connection.execute("SELECT time FROM flow ORDER BY id")]
        [[orphans]] = connection.execute(
            "SELECT count(*) FROM flow LEFT JOIN process ON process.id = owner WHERE process.id IS NULL"
        ).fetchall()
    # Whole commits in their order, and at least those that were told of.
    assert times == list(range(len(times))) and len(times) % EACH == 0 and len(times) >= committed
    assert orphans == 0
    with contextlib.suppress(sqlite3.Error):
        shutil.rmtree(place)
