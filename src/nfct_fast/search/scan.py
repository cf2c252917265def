"""Read the flows of a selection out of the files of a store, in order of time.

SQLite finds the rows, by its indexes; they become flows on replay, where the filter decides as it does for live ones.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby

from nfct_fast.conntrack import Conntrack
from nfct_fast.records.record import Flow
from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.search.open_files import OpenFiles
from nfct_fast.search.selection import Selection
from nfct_fast.store.rebuild import rebuild
from nfct_fast.store.schema import StoreError

_FIRST, _MOST = 256, 8192  # rows made into flows at once: few at first, as often only the first ones are wanted


def scan(files: OpenFiles, selection: Selection, *, newest_first: bool = False, community_id=None) -> Iterator[Flow]:
    """Yield the flows of a selection. Blocks as the disk does; what cannot be read is passed over, see OpenFiles.

    community_id: The seed of what is printed, as of Conntrack.

    Raises ValueError if the filter cannot be read.
    """
    columns = selection.columns()
    times = selection.times()
    for file in files.between(selection.since_ns, None if selection.alive else selection.until_ns, newest_first):
        if selection.alive and not files.may_begin_before(file, selection.until_ns):
            continue
        try:
            connection = files.open(file)
            if connection is not None:
                yield from _of_file(connection, selection, columns, times, newest_first, community_id)
        except (sqlite3.Error, StoreError, RecordingError, UnicodeError) as error:
            files.give_up(file, error)


def _of_file(connection, selection, columns, times, newest_first, community_id):
    where = f"{times[0]} AND {columns[0]}" if columns[0] else times[0]
    # "+time": no index may be chosen for the order, as it is numbers alone that are sorted.
    order = "+time DESC, id DESC" if newest_first else "+time, id"
    ids = connection.execute(f"SELECT id FROM flow WHERE {where} ORDER BY {order}", [*times[1], *columns[1]]).fetchall()
    at, size = 0, _FIRST
    while at < len(ids):
        piece = sorted([id for (id,) in ids[at : at + size]])
        flows = list(_flows(connection, piece, selection, community_id))
        yield from reversed(flows) if newest_first else flows
        at += size
        size = min(size * 4, _MOST)


def _flows(connection, ids, selection, community_id):
    """The flows of rows, in order of time."""
    marks = ", ".join("?" * len(ids))
    rows = connection.execute(f"SELECT boot, record FROM flow WHERE id IN ({marks}) ORDER BY +time, id", ids)
    for boot, group in groupby(rows, key=lambda row: row[0]):
        fd = rebuild(connection, boot, [record for _, record in group])
        try:
            with closing(_replay(fd, selection, community_id)) as conntrack:
                yield from conntrack
        finally:
            os.close(fd)


def _replay(fd, selection, community_id):
    return Conntrack(
        replay=fd, filter=selection.filter, protocol=selection.protocol, community_id=community_id, on_loss="count"
    )
