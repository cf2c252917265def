"""Write a recording, as it comes through a pipe, into the files of a store."""

import contextlib
import os
import select
import sqlite3
import time

from nfct_fast.seen.seen_file import SeenFile
from nfct_fast.store.finishing import Finisher, finish
from nfct_fast.store.hour_file import Claims, HourFile, connect, is_damaged
from nfct_fast.store.retention import SIZE, Retention
from nfct_fast.store.rows import RowMaker, packed_loss
from nfct_fast.store.schema import store_files

COMMIT_S = 0.3  # how long a record waits for others that are committed together with it
_COMMIT_FLOWS = 10_000  # ... or for as many
_AGAIN_S = 1.0  # how long after a failure the next commit is tried
_FILE_FLOWS = 250_000  # a file with as many is finished before its hour is over: it is scanned until then
_FILES = 2  # open at once: about the turn of the hour records of both come
_IDLE_S = 10.0  # how long nothing may come for an hour that is over before its file is finished
_RETENTION_S = 20.0


class StoreWriter:
    """The writer of a store.

    Args:
        directory: An absolute path of a directory that is there and nobody else writes to.
        fd: The end of a pipe, or a file, with a recording.
        days, size: See Retention.
        say: Called with a sentence for the operator.
        report: Called after each commit.
    """

    def __init__(self, directory, fd, *, days=None, size=SIZE, say=lambda sentence: None, report=lambda: None):
        self.stored = self.unstored = 0
        self._directory, self._fd, self._say, self._report = directory, fd, say, report
        self._maker = RowMaker(fd)
        self._files = {}  # by hour, the one that was used last at the end
        self._due = None  # monotonic seconds when the next commit is due; None: nothing waits
        self._failing_since = None  # ns since the epoch; None: the last commit succeeded
        self._lost = 0  # flows of which no row tells yet
        self._used = {}  # by hour, monotonic seconds when the last record came
        self._retention = None if days is None else Retention(directory, days, size)
        self._file_bytes = max(1 << 20, size // 8)
        self._claims = Claims()
        self._finisher = Finisher(directory, self._claims, say)
        self._next_housekeeping = self._next_retention = 0.0
        self._seen = SeenFile(directory, say)
        self._seen_unstored = 0  # `unstored` when what was seen was committed last

    def run(self) -> None:
        """Store what comes until it ends. RecordingError if it is damaged; what came before that is stored."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        try:
            more = True
            while more:
                if poll.poll(self._timeout()):
                    more = self._maker.read()
                    self._take()
                    more = more and not self._maker.over
                self._commit_if_due()
                self._housekeep()
        finally:
            self._end()

    def _timeout(self):
        now = time.monotonic()
        next_time = self._next_housekeeping if self._due is None else min(self._due, self._next_housekeeping)
        return max(0, int((next_time - now) * 1000) + 1)

    def _take(self):
        file = next(reversed(self._files.values()), None)
        while (hour := self._maker.take(None if file is None else file.rows)) is not None:
            file = self._file(hour)
        for chunk in self._maker.seen:
            self._seen.add(chunk)
        self._maker.seen.clear()
        if file is not None and file.rows:
            now = time.monotonic()
            self._used[file.hour] = now
            if self._due is None:
                self._due = now + COMMIT_S

    def _file(self, hour):
        file = self._files.pop(hour, None)
        while file is None and len(self._files) >= _FILES:
            self._finish(next(iter(self._files)))
        if file is None:
            file = HourFile(self._directory, hour, self._maker.beginning, self._claims, self._say)
        self._files[hour] = file
        self._used[hour] = time.monotonic()
        return file

    def _finish(self, hour):
        """Commit a file for the last time, and have it finished."""
        file = self._files[hour]
        self._commit(file)
        self._abandon_rows(file)
        file.close()
        del self._files[hour]
        self._used.pop(hour, None)
        if file.path is not None:
            self._finisher.give(file.path)

    def _abandon_rows(self, file):
        """What could not be committed is lost, as nobody will try again."""
        self._count_lost(len(file.rows.flows) + file.rows.refused)
        file.rows.clear()
        file.rows.refused = 0

    def _count_lost(self, flows):
        """Count flows that will not be stored, of which the next commit has a row."""
        self.unstored += flows
        self._lost += flows

    def _commit_if_due(self):
        waiting = sum(len(file.rows) for file in self._files.values())
        if self._due is None or (time.monotonic() < self._due and waiting < _COMMIT_FLOWS):
            return
        if waiting >= _COMMIT_FLOWS and self._failing_since is not None and time.monotonic() < self._due:
            return
        self._due = None
        for file in list(self._files.values()):
            if not self._commit(file):
                self._due = time.monotonic() + _AGAIN_S
            elif file.flows >= _FILE_FLOWS or file.size() >= self._file_bytes:
                self._finish(file.hour)
        if self._due is None:
            self._commit_seen()
        self._report()

    def _commit_seen(self):
        """After the flows: have on the disk what they were the first of. If some are missing, that is marked again."""
        if self.unstored != self._seen_unstored:
            self._seen.add(None)
            self._seen_unstored = self.unstored
        self._seen.commit()

    def _commit(self, file):
        """Commit one file; whether that was possible."""
        refused = file.rows.refused
        if self._lost and file.rows:
            self._tell_of_lost(file)
        try:
            self.stored += file.commit()
        except (sqlite3.Error, OSError) as error:
            return self._fail(file, error)
        if self._failing_since is not None:
            self._say(f"the store is written again; {refused} flows are missing in it")
            self._failing_since = None
        if refused:
            self._count_lost(refused)
            file.rows.refused = 0
        return True

    def _tell_of_lost(self, file):
        now = time.time_ns()
        since = self._failing_since or now
        file.rows.losses.append((now, since, self._lost, 0, file.rows.boot, packed_loss(now, since, self._lost)))
        self._lost = 0

    def _fail(self, file, error):
        if is_damaged(error):
            self._count_lost(file.give_up(error))
            return True
        if self._failing_since is None:
            self._failing_since = time.time_ns()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            self._say(f"the store {self._directory} cannot be written: {reason}. It is tried again every second")
        return False

    def _housekeep(self):
        now = time.monotonic()
        if now < self._next_housekeeping:
            return
        self._next_housekeeping = now + 1
        this_hour = int(time.time() // 3600)
        for hour in [hour for hour in self._files if hour != this_hour and now - self._used[hour] > _IDLE_S]:
            if self._failing_since is None:
                self._finish(hour)
        if self._retention is not None and now >= self._next_retention:
            self._next_retention = now + _RETENTION_S
            with contextlib.suppress(OSError):
                self._retention.enforce(self._claims)

    def _end(self):
        for file in list(self._files.values()):
            self._commit(file)
            self._abandon_rows(file)
        self._commit_seen()
        self._seen.close()
        self._finisher.stop()
        for file in self._files.values():
            file.close()
        self._report()


def store_recording(path, directory) -> StoreWriter:
    """Put a whole recording into a store that nobody else writes; all its files are finished afterwards.

    Raises OSError, RecordingError, StoreError, sqlite3.Error.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = StoreWriter(os.path.abspath(directory), fd)
        writer.run()
    finally:
        os.close(fd)
    for file in store_files(directory):
        with contextlib.closing(connect(file.path)) as connection:
            finish(file.path, connection)
    return writer
