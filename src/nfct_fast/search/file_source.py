"""The files of a store as a source of flows, in order of time.

SQLite finds the rows, by its indexes; they become flows on replay, where the filter decides as it does for live ones.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from itertools import groupby

from nfct_fast.records.record import Flow
from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.search.file_conditions import file_conditions
from nfct_fast.search.open_files import OpenFiles
from nfct_fast.search.row_player import RowPlayer
from nfct_fast.search.selection import Selection
from nfct_fast.store.rebuild import rebuild
from nfct_fast.store.schema import StoreError

_LOOKED_UP = 500, 20_000  # rows: an index that finds so few is used, after all were asked for the first number
_FIRST, _MOST = 256, 8192  # rows made into flows at once: few at first, as often only the first ones are wanted


class FileSource:
    """A directory of files, a FlowSource. What cannot be read is passed over, see OpenFiles."""

    def __init__(self, directory: str, complain: Callable[[str], None]) -> None:
        self._files = OpenFiles(directory, complain)

    def refresh(self) -> None:
        """List the files. Raises OSError if the directory cannot be read."""
        self._files.list()

    def scan(
        self, selection: Selection, *, newest_first: bool = False, community_id: int | None = None
    ) -> Iterator[Flow]:
        """Yield the flows of a selection, in order of time."""
        player = RowPlayer(selection.flow_filter, community_id)
        columns = file_conditions(selection)
        files, until_ns = self._files, selection.until_ns
        for file in files.between(selection.since_ns, None if selection.alive else until_ns, newest_first):
            if selection.alive and not files.may_begin_before(file, until_ns):
                continue
            try:
                connection = files.open(file)
                if connection is not None:
                    ids = _ids(connection, files.indexes(file), columns, newest_first)
                    yield from _made(connection, ids, player, newest_first)
            except (sqlite3.Error, StoreError, RecordingError, UnicodeError) as error:
                files.give_up(file, error)

    def sum_lost(self, selection: Selection) -> int:
        """Return how many events are known to have been lost within the time."""
        since, until = selection.since_ns, selection.until_ns
        return sum([self._files.sum_lost(file, since, until) for file in self._files.between(since, until, False)])

    @property
    def is_empty(self) -> bool:
        """Whether there was no file when the directory was last read."""
        return self._files.are_none

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def _ids(connection, indexes, columns, newest_first):
    """The ids of the rows for which all of these conditions are true, in order.

    SQLite does not know which values of a column are frequent. So the index is chosen here, by counting in each what
    there is for these values, which stops where it would be much.
    """
    where = " AND ".join([part.sql for part in columns])
    values = [value for part in columns for value in part.values]
    order = "ORDER BY flow.time DESC, flow.id DESC" if newest_first else "ORDER BY flow.time, flow.id"
    for most in _LOOKED_UP:
        for part in columns:
            if part.lookups is None or not indexes.issuperset([one.index for one in part.lookups]):
                continue
            # An index of one column holds the ids: no row is read for this.
            found = " UNION ALL ".join(
                [f"SELECT id AS at FROM flow INDEXED BY {i} WHERE {w}" for i, w, _ in part.lookups]
            )
            bound = [value for one in part.lookups for value in one.values]
            [count] = connection.execute(f"SELECT count(*) FROM ({found} LIMIT {most + 1})", bound).fetchone()
            if count == 0:
                return []
            if count <= most:
                rows = f"(SELECT DISTINCT at FROM ({found})) CROSS JOIN flow ON id = at"
                statement = f"SELECT id FROM {rows} WHERE {where} {order}"
                return [id for (id,) in connection.execute(statement, [*bound, *values])]
    return [id for (id,) in connection.execute(f"SELECT id FROM flow WHERE {where} {order}", values)]


def _made(connection, ids, player, newest_first):
    """Yield the flows of these rows that are wanted."""
    at, size = 0, _FIRST
    while at < len(ids):
        flows = _flows(connection, sorted(ids[at : at + size]), player)
        yield from reversed(flows) if newest_first else flows
        at += size
        size = min(size * 4, _MOST)


def _flows(connection, ids, player):
    """The flows of rows, in order of time."""
    marks = ", ".join("?" * len(ids))
    rows = connection.execute(f"SELECT boot, record FROM flow WHERE id IN ({marks}) ORDER BY +time, id", ids)
    flows = []
    for boot, group in groupby(rows, key=lambda row: row[0]):
        fd = rebuild(connection, boot, [record for _, record in group])
        try:
            flows += player.play(fd)
        finally:
            os.close(fd)
    return flows
