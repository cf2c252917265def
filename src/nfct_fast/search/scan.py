"""Read the flows of a selection out of the files of a store, in order of time.

SQLite finds the rows, by its indexes; they become flows on replay, where the filter decides as it does for live ones.
"""

import os
import sqlite3
from collections.abc import Iterator
from itertools import groupby

from nfct_fast.records.record import Flow
from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.search.open_files import OpenFiles
from nfct_fast.search.row_player import RowPlayer
from nfct_fast.search.selection import Selection
from nfct_fast.store.rebuild import rebuild
from nfct_fast.store.schema import StoreError

_FIRST, _MOST = 256, 8192  # rows made into flows at once: few at first, as often only the first ones are wanted


def scan(files: OpenFiles, selection: Selection, *, newest_first: bool = False, community_id=None) -> Iterator[Flow]:
    """Yield the flows of a selection. Blocks as the disk does; what cannot be read is passed over, see OpenFiles.

    community_id: The seed of what is printed, as of Conntrack.
    """
    where, values = selection.where
    # "+time": no index may be chosen for the order, as it is numbers alone that are sorted.
    order = "+time DESC, id DESC" if newest_first else "+time, id"
    statement = f"SELECT id FROM flow WHERE {where} ORDER BY {order}", values
    player = RowPlayer(selection.flow_filter, community_id)
    for file in files.between(selection.since_ns, None if selection.alive else selection.until_ns, newest_first):
        if selection.alive and not files.may_begin_before(file, selection.until_ns):
            continue
        try:
            connection = files.open(file)
            if connection is not None:
                yield from _of_file(connection, statement, player, newest_first)
        except (sqlite3.Error, StoreError, RecordingError, UnicodeError) as error:
            files.give_up(file, error)


def _of_file(connection, statement, player, newest_first):
    ids = [id for (id,) in connection.execute(*statement)]
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
