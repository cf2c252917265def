"""Finish files to which nothing is added any more: give them all indexes, and make one file of each."""

import contextlib
import sqlite3
import threading
import time
from _thread import allocate_lock

from nfct_fast.store.hour_file import connect, is_damaged, is_empty, is_finished, remove, set_aside, transaction
from nfct_fast.store.schema import INDEXES, StoreError, check_version, store_files

_AGAIN_S = 60.0  # until what could not be done is tried again


def finish(path, connection) -> None:
    """Finish one file. sqlite3.Error; whatever is done by then remains, and is not done again."""
    check_version(connection, path)
    if not is_finished(connection):
        for index in INDEXES:
            connection.execute(index)
        [earliest] = connection.execute(
            "SELECT min(moment) FROM (SELECT min(time) AS moment FROM flow UNION ALL SELECT min(began) FROM flow "
            "UNION ALL SELECT min(time) FROM loss)"
        ).fetchone()
        [latest] = connection.execute(
            "SELECT max(moment) FROM (SELECT max(time) AS moment FROM flow UNION ALL SELECT max(time) FROM loss)"
        ).fetchone()
        connection.execute("ANALYZE")
        facts = (("earliest", earliest), ("latest", latest), ("finished", 1))
        with transaction(connection):
            connection.executemany("INSERT OR REPLACE INTO meta VALUES(?, ?)", facts)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()


class Finisher:
    """A thread that finishes files, one after another, while others are written.

    Args:
        directory: Files in it that were left unfinished are finished, too.
        claims: The Claims of the store: what is in use is not touched.
        say: Called with a sentence for the operator.
    """

    def __init__(self, directory, claims, say):
        self._directory, self._claims, self._say = directory, claims, say
        self._known = set()  # paths of files that were found finished, or damaged
        self._wake = threading.Event()
        self._given = set()
        self._stopping = False
        self._lock = allocate_lock()
        self._connection = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def give(self, path) -> None:
        """Have it finish a file that is not written any more, whatever its hour is."""
        self._given.add(path)
        self._wake.set()

    def stop(self) -> None:
        """End it soon, whatever it does; what is not finished is found again at the next start."""
        with self._lock:
            self._stopping = True
            if self._connection is not None:
                self._connection.interrupt()
        self._wake.set()
        self._thread.join()

    def _run(self):
        while not self._stopping:
            self._wake.clear()
            with contextlib.suppress(OSError):
                files = store_files(self._directory)
                self._known &= {file.path for file in files}
                # The newest first: these are searched most.
                later = None
                for file in reversed(files):
                    if self._stopping:
                        return
                    # The last file of this hour is the writer's to go on with.
                    is_last, later = later is None or later.hour != file.hour, file
                    if is_last and file.hour == int(time.time() // 3600) and file.path not in self._given:
                        continue
                    if file.path not in self._known and self._claims.claim(file.path):
                        try:
                            self._finish(file.path)
                        finally:
                            self._claims.release(file.path)
            self._wake.wait(_AGAIN_S)

    def _finish(self, path):
        connection = None
        try:
            connection = connect(path)
            with self._lock:
                self._connection = connection
            if self._stopping:
                return
            if is_empty(connection):
                remove(path)
                return
            finish(path, connection)
            self._known.add(path)
        except (sqlite3.Error, StoreError) as error:
            if is_damaged(error):
                self._known.add(path)
                with contextlib.suppress(OSError):
                    self._say(f"{path} is damaged ({error}): it is now {set_aside(path)}")
            # Else the disk is full, or somebody reads it: later.
        finally:
            with self._lock:
                self._connection = None
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
