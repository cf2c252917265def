"""The files of a store while it is searched: each opened once, read only; what cannot be read is passed over."""

import os
import sqlite3
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator

from nfct_fast.store.schema import HOUR_NS, StoreError, StoreFile, open_file, store_files

_LENGTH_MOST = 1 << 20  # bytes of a value; a record has at most 128 KiB
_OPEN_MOST = 100  # at once; one that is being written takes three descriptors


class OpenFiles:
    """The files of a directory as they are when it is listed.

    Args:
        directory: Of the store.
        complain: Called with a sentence for each file that is passed over, once.

    """

    def __init__(self, directory: str, complain: Callable[[str], None]) -> None:
        self._directory = directory
        self._files: list[StoreFile] = []
        self._is_listed = False
        self._complain = complain
        self._open: OrderedDict[str, sqlite3.Connection] = OrderedDict()
        self._earliest: dict[str, int | None] = {}
        self._indexes: dict[str, frozenset[str]] = {}
        self._given_up: set[str] = set()

    def list(self) -> None:
        """Find the files that are there now. Raises OSError if the directory cannot be read."""
        self._files = store_files(self._directory)
        self._is_listed = True

    @property
    def are_none(self) -> bool:
        """Whether they were listed, and there is none."""
        return self._is_listed and not self._files

    def between(self, since_ns: int, until_ns: int | None, newest_first: bool) -> Iterator[StoreFile]:
        """Yield the files that may hold a record of that time, in order."""
        for file in reversed(self._files) if newest_first else self._files:
            begin = file.hour * HOUR_NS
            if begin + HOUR_NS > since_ns and (until_ns is None or begin < until_ns):
                yield file

    def open(self, file: StoreFile) -> sqlite3.Connection | None:
        """Return a connection, which stays this object's; None if the file is gone or cannot be read."""
        path = file.path
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if path in self._given_up:
            return None
        try:
            connection = _open(path)
        except (StoreError, OSError) as error:
            if os.path.lexists(path):  # else its time was over, or it has another name now
                self.give_up(file, error)
            return None
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH_MOST)
        self._open[path] = connection
        while len(self._open) > _OPEN_MOST:
            old, other = self._open.popitem(last=False)
            self._indexes.pop(old, None)
            other.close()
        return connection

    def indexes(self, file: StoreFile) -> frozenset[str]:
        """Return the names of the indexes of a file that is open; one that is written has few. Raises sqlite3.Error."""
        if file.path not in self._indexes:
            names = self._open[file.path].execute("SELECT name FROM sqlite_master WHERE type = 'index'")
            self._indexes[file.path] = frozenset([name for (name,) in names])
        return self._indexes[file.path]

    def may_begin_before(self, file: StoreFile, until_ns: int) -> bool:
        """Whether a flow in a file may have begun before a time: of a finished file that is known."""
        path = file.path
        if path not in self._earliest:
            connection = self.open(file)
            if connection is None:
                return False
            try:
                row = connection.execute("SELECT value FROM meta WHERE key = 'earliest'").fetchone()
            except sqlite3.Error as error:
                self.give_up(file, error)
                return False
            self._earliest[path] = row[0] if row and isinstance(row[0], int) else None
        earliest = self._earliest[path]
        return earliest is None or earliest < until_ns

    def sum_lost(self, file: StoreFile, since_ns: int, until_ns: int) -> int:
        """Return how many events were lost according to a file, within a time."""
        connection = self.open(file)
        if connection is None:
            return 0
        try:
            row = connection.execute(
                "SELECT sum(events) FROM loss WHERE time >= ? AND time < ?", (since_ns, until_ns)
            ).fetchone()
        except sqlite3.Error as error:
            self.give_up(file, error)
            return 0
        return row[0] if isinstance(row[0], int) else 0

    def give_up(self, file: StoreFile, error: Exception) -> None:
        """Pass a file over from now on."""
        path = file.path
        if path not in self._given_up:
            self._given_up.add(path)
            text = str(error)
            self._complain(f"passed over: {text if path in text else f'{path}: {text}'}")
        if path in self._open:
            self._indexes.pop(path, None)
            self._open.pop(path).close()

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].close()
        self._indexes.clear()


def _open(path):
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would keep whoever opens it waiting
        raise StoreError(f"{path}: no regular file")
    try:
        return open_file(path)
    except StoreError:
        # Of a file that the logger left unfinished SQLite wants to make its "-shm" anew, which only its owner may.
        if os.access(os.path.dirname(path), os.W_OK) or os.path.exists(f"{path}-wal"):
            raise
        return open_file(path, immutable=True)
