"""Stores in tests: a place where an unprivileged user can write, and what is in the files afterwards."""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from nfct_fast import Conntrack
from nfct_fast.store.rebuild import rebuild
from nfct_fast.store.schema import open_file, store_files
from support.cli import until


@contextlib.contextmanager
def place():
    """A directory that everybody may enter, as a store has to be reached by the user who writes it."""
    path = Path(tempfile.mkdtemp(prefix="nfct-store-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def query(directory, text):
    """The rows of a query over all files, the oldest first."""
    rows = []
    for file in store_files(directory):
        with contextlib.closing(open_file(file.path)) as connection:
            rows += connection.execute(text).fetchall()
    return rows


def played(directory):
    """All flows in a store as JSON has them, in the order of their rows, and the sum of what is reported as lost."""
    flows, lost = [], 0
    for file in store_files(directory):
        with contextlib.closing(open_file(file.path)) as connection:
            for [boot] in connection.execute("SELECT DISTINCT boot FROM flow ORDER BY boot").fetchall():
                rows = connection.execute("SELECT record FROM flow WHERE boot = ? ORDER BY id", (boot,))
                fd = rebuild(connection, boot, [row[0] for row in rows])
                with Conntrack(replay=fd) as conntrack:
                    flows += [json.loads(flow.to_json()) for flow in conntrack]
                os.close(fd)
            lost += connection.execute("SELECT coalesce(sum(events), 0) FROM loss").fetchone()[0]
    return flows, lost


def check_integrity(directory):
    """Open each file as whoever writes to it next does, after a crash, and have SQLite check it."""
    for file in store_files(directory):
        with contextlib.closing(sqlite3.connect(file.path)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], file.path


def store_pid(program):
    """The id of its process nfct-store."""

    def find():
        for pid in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                fields = Path("/proc", str(int(pid)), "stat").read_text()
                if "(nfct-store)" in fields and int(fields.rpartition(")")[2].split()[1]) == program.pid:
                    return int(pid)
        return None

    return until(find, what="nfct-store")


def family(program):
    """The ids of the program's process and its helpers."""
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    return [program.pid, *map(int, children)]
