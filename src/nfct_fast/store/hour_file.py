"""One file of a store while it is written: rows are gathered, and committed together."""

import contextlib
import os
import sqlite3
from _thread import allocate_lock

from nfct_fast.store.rows import FileRows
from nfct_fast.store.schema import APPLICATION_ID, TABLES, VERSION, StoreError, check_version, file_name, store_files

_BESIDE = ("-wal", "-shm")  # what the names of files end with that are beside one while it is written
ENDS = ("", *_BESIDE, "-journal")  # of the names of what SQLite makes of a file
GATHERED = 20_000  # flows that wait for a commit at most, in 25 MB; beyond that they are only counted
_INSERT = {
    "process": f"INSERT INTO process VALUES({','.join('?' * 11)})",
    "flow": f"INSERT INTO flow VALUES(NULL,{','.join('?' * 19)})",
    "loss": f"INSERT INTO loss VALUES(NULL,{','.join('?' * 6)})",
}
_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit is on the disk before it counts; NORMAL would lose the last ones
    "PRAGMA temp_store = MEMORY",  # the sandbox has no place for temporary files
    "PRAGMA cache_size = -8000",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA journal_size_limit = 0",
)


def connect(path: str) -> sqlite3.Connection:
    """Open a file for writing. sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=2, check_same_thread=False)
    try:
        for setting in _SETTINGS:
            connection.execute(setting).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection):
    """What is done in the block is done whole, on the disk, or not at all. sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def is_damaged(error: Exception) -> bool:
    """Whether the error says that the file itself is wrong, and not that it cannot be written just now."""
    if isinstance(error, StoreError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def set_aside(path: str) -> str:
    """Rename a file that is damaged, so that nothing reads it as part of the store. Returns the new name; OSError."""
    aside = f"{path}.damaged"
    os.replace(path, aside)
    for end in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + end, aside + end)
    return aside


def is_finished(connection: sqlite3.Connection) -> bool:
    """Whether nothing is added to this file any more: it has all indexes."""
    return connection.execute("SELECT 1 FROM meta WHERE key = 'finished'").fetchone() is not None


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file was only just begun, when something ended the program or the host."""
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def remove(path: str) -> None:
    """Remove a file, and what SQLite keeps beside it. OSError; that it is not there is none."""
    for end in ENDS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)


def _touch(path):
    """Make a file that was not there."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _sync(directory):
    """Have the names in a directory on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Claims:
    """Which files are in use, by the thread that writes or by the one that finishes."""

    def __init__(self):
        self._lock = allocate_lock()
        self._paths = set()

    def __contains__(self, path):
        with self._lock:
            return path in self._paths

    def claim(self, path) -> bool:
        """Claim a file; False if it is in use already."""
        with self._lock:
            if path in self._paths:
                return False
            self._paths.add(path)
            return True

    def release(self, path) -> None:
        """Give it up."""
        with self._lock:
            self._paths.discard(path)


class HourFile:
    """A file for the records of one hour: the last one that there is if it was not finished, or else another one.

    A new one is made by the first commit. What is in `rows` stays there until it is committed.

    Args:
        directory: Where.
        hour: In hours since the epoch.
        beginning: What the recording begins with from which the rows come.
        claims: The Claims of this store.
        say: Called with a sentence for the operator.
    """

    def __init__(self, directory, hour, beginning, claims, say):
        self.hour, self.flows, self.path = hour, 0, None
        self._claims = claims
        self._directory, self._beginning, self._say = directory, beginning, say
        self._connection = None
        self._number = 0
        self._boot = next_id = 1
        known = [file for file in store_files(directory) if file.hour == hour]
        if known:
            self._number = known[-1].number + 1
            if claims.claim(known[-1].path):
                next_id = self._resume(known[-1])
        self.rows = FileRows(hour, self._boot, next_id, GATHERED)

    def _resume(self, file):
        """Go on with a file that was claimed, if that is possible; return the first process.id that is free in it."""
        connection, resumed = None, False
        try:
            connection = connect(file.path)
            if is_empty(connection):
                remove(file.path)
                return 1
            check_version(connection, file.path)
            if is_finished(connection):
                return 1
            [problem] = connection.execute("PRAGMA quick_check(1)").fetchone()  # takes 0.3 s for the largest file
            if problem != "ok":
                raise StoreError(problem)
            [last_boot] = connection.execute("SELECT count(*) FROM meta WHERE key LIKE 'boot:%'").fetchone()
            [last_id] = connection.execute("SELECT coalesce(max(id), 0) FROM process").fetchone()
            [flows] = connection.execute("SELECT coalesce(max(id), 0) FROM flow").fetchone()
            self._boot = last_boot + 1
            self._tell_boot(connection)
            resumed = True
        except (sqlite3.Error, StoreError) as error:
            self._boot = 1
            if is_damaged(error):
                self._set_aside(file.path, error)
            return 1  # and another file is begun, which will succeed if it is only this one
        finally:
            if not resumed:
                if connection is not None:
                    connection.close()
                self._claims.release(file.path)
        self._connection, self.path, self._number, self.flows = connection, file.path, file.number, flows
        return last_id + 1

    def _set_aside(self, path, error):
        try:
            self._say(f"{path} is damaged ({error}): it is now {set_aside(path)}")
        except OSError as failure:
            self._say(f"{path} is damaged ({error}), and cannot be renamed: {failure.strerror}")

    def _tell_boot(self, connection):
        connection.execute("INSERT INTO meta VALUES(?, ?)", (f"boot:{self._boot}", self._beginning))

    def _make(self):
        """Make the file. It appears as a whole, as others may be looking for files to read."""
        path = os.path.join(self._directory, file_name(self.hour, self._number))
        while os.path.lexists(path) or not self._claims.claim(path):
            self._number += 1
            path = os.path.join(self._directory, file_name(self.hour, self._number))
        made = f"{path}.new"
        try:
            remove(made)
            _touch(made)
            with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = MEMORY").fetchall()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
                for table in TABLES:
                    connection.execute(table)
                self._tell_boot(connection)
                connection.execute("COMMIT")
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
            remove(path)  # a "-wal" without its file, which SQLite would take for this one's
            for end in _BESIDE:  # before a reader makes them: root's would be nobody else's for a moment
                _touch(path + end)
            os.rename(made, path)
            _sync(self._directory)
            self._connection = connect(path)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(made)
                remove(path)
            self._claims.release(path)
            raise
        self.path = path

    def commit(self) -> int:
        """Put the rows into the file, on the disk; return how many flows these were.

        Raises sqlite3.Error or OSError if that is not possible; then the file is as before, and so are the rows.
        """
        if not self.rows:
            return 0
        if self.path is None:
            self._make()
        elif self._connection is None:
            self._connection = connect(self.path)
        connection, count = self._connection, len(self.rows.flows)
        try:
            with transaction(connection):
                connection.executemany(_INSERT["process"], self.rows.processes)
                connection.executemany(_INSERT["flow"], self.rows.flows)
                connection.executemany(_INSERT["loss"], self.rows.losses)
        except BaseException:
            # A connection that could open the "-wal" for reading only, as when root's reader had made it and not yet
            # given it to the owner, stays read-only.
            self._disconnect()
            raise
        self.flows += count
        self.rows.clear()
        return count

    def give_up(self, error) -> int:
        """Set a damaged file aside, and begin another one. Return how many flows are lost, which had waited for it."""
        lost = len(self.rows.flows) + self.rows.refused
        self._disconnect()
        if self.path is not None:
            self._set_aside(self.path, error)
            self._claims.release(self.path)
        self.path, self.flows, self._boot = None, 0, 1
        self._number += 1
        self.rows = FileRows(self.hour, 1, 1, GATHERED)
        return lost

    def size(self) -> int:
        """Return how many bytes it has, 0 if it is not there."""
        size = 0
        for end in ("", "-wal") if self.path is not None else ():
            with contextlib.suppress(OSError):
                size += os.stat(self.path + end).st_size
        return size

    def close(self) -> None:
        """Close it; what is in `rows` is not committed. Whoever is last to close it makes one file of it again."""
        self._disconnect()
        if self.path is not None:
            self._claims.release(self.path)

    def _disconnect(self):
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
