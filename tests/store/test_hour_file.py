"""A store's file while others read it, and what is left of one that is gone."""

import contextlib
import os
import sqlite3

import pytest

from nfct_fast.store import hour_file
from nfct_fast.store.hour_file import Claims, HourFile

HOUR = 480_000


@pytest.fixture
def file(tmp_path):
    opened = HourFile(str(tmp_path), HOUR, b"", Claims(), say=lambda sentence: None)
    yield opened
    opened.close()


def lose(file, events):
    file.rows.losses.append((0, 0, events, 0, 1, b""))


def lost(path):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [events for (events,) in connection.execute("SELECT events FROM loss ORDER BY id")]


def test_a_connection_that_is_read_only_is_not_kept(file, monkeypatch):
    """SQLite opens a "-wal" for reading only where it cannot write to it just then, and leaves it at that."""

    def connect_read_only(path):
        connection = connect(path)
        connection.execute("PRAGMA query_only = ON")
        return connection

    connect = hour_file.connect
    with monkeypatch.context() as patch:
        patch.setattr(hour_file, "connect", connect_read_only)
        lose(file, 7)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            file.commit()
    assert lost(file.path) == []
    file.commit()
    assert lost(file.path) == [7] and not file.rows


def test_readers_find_all_files_made(file, monkeypatch):
    """Root's reader would make them as its own, where the writer cannot open them until SQLite has given them away."""

    def look(old, new):
        assert sorted(os.listdir(os.path.dirname(new))) == [
            os.path.basename(name) for name in (f"{new}-shm", f"{new}-wal", old)
        ]
        rename(old, new)
        assert lost(new) == []
        seen.append(new)

    seen, rename = [], os.rename
    monkeypatch.setattr(os, "rename", look)
    lose(file, 7)
    file.commit()
    assert seen == [file.path] and lost(file.path) == [7]


def test_the_log_of_a_file_that_is_gone_is_not_taken_for_another_ones(file, tmp_path):
    lose(file, 7)
    file.commit()
    lose(file, 8)
    file.commit()
    log = open(f"{file.path}-wal", "rb").read()
    file.close()
    os.unlink(file.path)
    with open(f"{file.path}-wal", "wb") as left:
        left.write(log)
    another = HourFile(str(tmp_path), HOUR, b"", Claims(), say=lambda sentence: None)
    lose(another, 9)
    another.commit()
    assert another.path == file.path and lost(another.path) == [9]
    another.close()
    assert lost(another.path) == [9]
