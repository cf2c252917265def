"""Stores made of recordings, by the code that makes rows of what the logger records; the files look finished."""

import os
import sqlite3

from nfct_fast.store.rows import FileRows, RowMaker
from nfct_fast.store.schema import APPLICATION_ID, INDEXES, TABLES, VERSION, file_name
from support.described_flows import record

_MARKS = {"process": 11, "flow": 20, "loss": 7}
_FIRST = {"process": "?", "flow": "NULL", "loss": "NULL"}  # the id


class _File:
    def __init__(self, directory, hour, beginning):
        self.path = os.path.join(directory, file_name(hour, 0))
        self.rows = FileRows(hour, 1, 1, 1 << 40)
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        for statement in (
            f"PRAGMA application_id = {APPLICATION_ID}",
            f"PRAGMA user_version = {VERSION}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "BEGIN",
            *TABLES,
        ):
            self.connection.execute(statement)
        self.connection.execute("INSERT INTO meta VALUES('boot:1', ?)", (beginning,))

    def insert(self):
        for name, rows in (("process", self.rows.processes), ("flow", self.rows.flows), ("loss", self.rows.losses)):
            marks = ", ".join([_FIRST[name], *"?" * (_MARKS[name] - 1)])
            self.connection.executemany(f"INSERT INTO {name} VALUES({marks})", rows)
        self.rows.clear()

    def finish(self):
        self.insert()
        for statement in INDEXES:
            self.connection.execute(statement)
        earliest, latest = self.connection.execute(
            "SELECT min(min(time, coalesce(began, time))), max(time) FROM flow"
        ).fetchone()
        self.connection.executemany(
            "INSERT INTO meta VALUES(?, ?)", [("earliest", earliest), ("latest", latest), ("finished", 1)]
        )
        self.connection.execute("COMMIT")
        self.connection.execute("PRAGMA journal_mode = DELETE")
        self.connection.close()
        os.chmod(self.path, 0o600)


def store_recording(directory, fd):
    """Store what a descriptor has, whose records are in order of their hours."""
    maker, file = RowMaker(fd), None
    while maker.read():
        while (hour := maker.take(None if file is None else file.rows)) is not None:
            if file is not None:
                file.finish()
            file = _File(directory, hour, maker.beginning)
        if file is not None:
            file.insert()
    if file is not None:
        file.finish()


def make_store(directory, flows):
    """Store flows as of support.described_flows, which have to be in order of their hours."""
    fd = os.memfd_create("recording")
    try:
        os.write(fd, record(flows))
        os.lseek(fd, 0, os.SEEK_SET)
        store_recording(directory, fd)
    finally:
        os.close(fd)
