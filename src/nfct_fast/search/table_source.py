"""The table nfct_flows of a ClickHouse as a source of flows, in order of time.

First the server counts, by hours, the rows for which its conditions are true. Then rows are asked for, of as many hours
at once as have a good number of them: so it sorts no more than that, and the first flows come soon. They become flows
on replay, where the filter decides as it does for live ones.
"""

from collections.abc import Callable, Iterator

from nfct_fast.clickhouse.clickhouse_error import ClickHouseError
from nfct_fast.clickhouse.http_query import Bound, HttpQuery, row
from nfct_fast.clickhouse.row_columns import COLUMNS
from nfct_fast.clickhouse.row_recording import RowRecording
from nfct_fast.clickhouse.server_url import ServerUrl
from nfct_fast.records.record import Flow
from nfct_fast.replay.recording_error import RecordingError
from nfct_fast.search.row_player import RowPlayer
from nfct_fast.search.selection import Selection
from nfct_fast.search.table_conditions import lost_conditions, table_conditions
from nfct_fast.search.time_spans import NS

_HOUR_NS = 3600 * NS
_FIRST, _MOST = 2_000, 200_000  # rows of one query, if they are of several hours: few at first
_HOURS_MOST = 200_000  # of an answer: 22 years
_ROWS_MOST = 10_000_000  # of one search: what tells which records are of one flow is kept in memory
_SAME_MOST = 10_000  # rows of one moment among which one is known again
# What was received together has one time: of a flow the end is last.
_ORDER = ("time", "host", "type IN ('DESTROY', 'FLOW')", "type", "id")
_ROWS = "FORMAT JSONCompactEachRow"


class TableSource:
    """A table, a FlowSource. Raises ClickHouseError if the server cannot be asked, or answers what cannot be.

    complain: Called with a sentence about what is left out, once.
    """

    def __init__(self, url: ServerUrl, complain: Callable[[str], None]) -> None:
        self._query = HttpQuery(url)
        self._complain = complain
        self._has_complained = False
        self._table = Bound("Identifier", url.table)
        self._losses = Bound("Identifier", url.table.removesuffix("flows") + "losses")

    def refresh(self) -> None:
        """Nothing: each query sees what is there."""

    def scan(
        self, selection: Selection, *, newest_first: bool = False, community_id: int | None = None
    ) -> Iterator[Flow]:
        """Yield the flows of a selection, in order of time."""
        player = RowPlayer(selection.flow_filter, community_id)
        parts = table_conditions(selection)
        where = " AND ".join(["1", *[part.sql for part in parts]])
        values = [value for part in parts for value in part.values]
        left = _ROWS_MOST
        for begin, end in self._spans(where, values, newest_first):
            for recording, rows in self._recordings(where, values, begin, end, newest_first):
                left -= rows
                if left < 0:
                    raise self._error(f"more than {_ROWS_MOST:,} rows: ask for less by --since, --until or a filter")
                try:
                    yield from player.play_bytes(recording)
                except (RecordingError, ValueError) as error:
                    raise self._error(f"a row that no nfct-fast wrote: {error}") from None

    def sum_lost(self, selection: Selection) -> int:
        """Return how many events are known to have been lost in the time, and on the hosts, of a selection."""
        parts = lost_conditions(selection)
        where = " AND ".join(["1", *[part.sql for part in parts]])
        values = [self._losses, *[value for part in parts for value in part.values]]
        counted = list(self._rows(f"SELECT sum(lost) FROM ? FINAL WHERE {where} {_ROWS}", values, 1))
        return sum([_whole(number) for (number,) in counted])

    @property
    def is_empty(self) -> bool:
        """Whether the table has no row at all; it is asked if nothing was found."""
        return not list(self._rows(f"SELECT 1 FROM ? LIMIT 1 {_ROWS}", [self._table], 1))

    def close(self) -> None:
        """Close the connections."""
        self._query.close()

    def _error(self, text):
        return ClickHouseError(f"{self._query.url.shown}: {text}")

    def _rows(self, query, values, most):
        """The rows of a small answer."""
        count = 0
        for lines in self._query.lines(query, values):
            for line in lines:
                count += 1
                if count > most:
                    raise self._error("answers more rows than it was asked for")
                try:
                    yield row(line)
                except ValueError:
                    raise self._error("answers a row that cannot be read") from None

    def _spans(self, where, values, newest_first):
        """From when to when rows are asked for, in ns."""
        order = "DESC" if newest_first else "ASC"
        counted = self._rows(
            "SELECT toUnixTimestamp(toStartOfHour(time)) AS hour, countIf(count = 1), countIf(count > 1) FROM ? "
            f"WHERE {where} GROUP BY hour ORDER BY hour {order} {_ROWS}",
            [self._table, *values],
            _HOURS_MOST,
        )
        found = []
        try:
            found = [tuple(map(_whole, hour)) for hour in counted]
            several = sum([hour[2] for hour in found])
        except (TypeError, ValueError, IndexError):
            raise self._error("answers no hours") from None
        if several and not self._has_complained:
            self._has_complained = True
            self._complain(
                f"{several} rows that may be meant are left out: each is of several flows (--aggregate) without their "
                "source ports; ask for them in SQL, as `nfct-fast fleet` has it"
            )
        hours = []
        total, most = 0, _FIRST
        for hour, count, _ in found:
            if hours and total + count > most:
                yield _span(hours)
                hours, total = [], 0
                most = min(most * 10, _MOST)
            if count:
                hours.append(hour * NS)
                total += count
        if hours:
            yield _span(hours)

    def _recordings(self, where, values, begin, end, newest_first):
        """The recordings of rows of a time, and how many rows each has. Rows that were delivered twice are one."""
        order = ", ".join([f"{column} DESC" if newest_first else column for column in _ORDER])
        time = "fromUnixTimestamp64Nano(?, 'UTC')"
        query = f"SELECT {COLUMNS} FROM ? WHERE time >= {time} AND time < {time} AND count = 1 AND {where} "
        query += f"ORDER BY {order} {_ROWS}"
        bound = [self._table, Bound("Int64", str(begin)), Bound("Int64", str(end)), *values]
        recording = RowRecording()
        moment, same = None, set()
        for lines in self._query.lines(query, bound):
            for line in lines:
                try:
                    found = row(line)
                    if found[3:4] != moment or len(same) > _SAME_MOST:
                        moment = found[3:4]
                        same.clear()
                    elif hash(line) in same:
                        continue
                    same.add(hash(line))
                    if recording.is_full:
                        count = recording.rows
                        yield recording.take(), count
                    recording.add(found)
                except ValueError as error:
                    raise self._error(f"answers a row that cannot be read: {error}") from None
            count = recording.rows
            yield recording.take(), count


def _span(hours):
    return min(hours), max(hours) + _HOUR_NS


def _whole(number):
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise ValueError("no number")
    return int(number)
