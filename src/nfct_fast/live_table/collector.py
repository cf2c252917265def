"""The thread that takes records and reads tables, whatever the terminal does, and sums up each interval."""

import os
import select
import threading
import time
from typing import NamedTuple

from nfct_fast.live_table.followed_flows import FollowedFlows
from nfct_fast.live_table.row import Totals
from nfct_fast.live_table.table_reading import TableReading

_GATHER_S = 0.05  # between two batches: the ring holds as many records as come at 650,000/s
_READ_S = 0.02  # of reading tables before records are taken again
_LAZY = 10  # readings take at most one part of so many of a processor


class Interval(NamedTuple):
    """What there was in one interval, besides the rows."""

    number: int  # from 1 on
    at: float  # seconds since the epoch when it ended
    seconds: float  # how long it took
    planned: float  # how long the next one will take
    slowed: bool  # that is longer than was asked for, as it takes long to read the tables
    reading: float  # CPU seconds that the reading of the tables took
    totals: Totals
    lost: int  # events, since the start
    at_least: bool  # `lost` is a lower bound
    recovered: int  # flows, since the start


class Collector:
    """The flows of a Conntrack(events="NEW", flows=True, _tables=True), followed by a thread of its own.

    Args:
        conntrack: No one else may take its flows.
        grouping: What rows stand for, one of parties.GROUPINGS.
        seconds: How long an interval is, at least.
        keep: Seconds for which what has ended is kept.
        first: How long the first interval is.

    Attributes:
        interval: The last Interval; None before the first.
        failure: The exception that ended the thread, or None.
        over: Whether the thread has ended.
    """

    def __init__(self, conntrack, grouping, seconds, keep, first):
        self.interval = self.failure = None
        self.over = False
        self._conntrack, self._seconds, self._keep = conntrack, seconds, int(keep * 1e9)
        self._flows = FollowedFlows(grouping)
        self._reading = TableReading(self._flows, conntrack._tables)
        self._due = time.monotonic() + first
        self._ended = time.monotonic()
        self._lock = threading.Lock()
        self._filled = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._drop_rights = None

    def start(self, drop_rights=None) -> None:
        """Start the thread; drop_rights() is called in it first."""
        self._drop_rights = drop_rights
        self._thread.start()

    def fileno(self) -> int:
        """A descriptor that polls readable when `interval`, `failure` or `over` has changed, until seen()."""
        return self._filled

    def seen(self) -> None:
        try:
            os.eventfd_read(self._filled)
        except BlockingIOError:
            pass

    def stop(self) -> None:
        """End the thread and close its descriptors. Call before the Conntrack is closed."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._filled)
        os.close(self._stop)

    def rows(self, sort) -> list:
        """The rows as of the last interval; see FollowedFlows.rows()."""
        with self._lock:
            return self._flows.rows(sort)

    def flows_of(self, key) -> list:
        """The flows of a row; see FollowedFlows.flows_of()."""
        with self._lock:
            return self._flows.flows_of(key)

    def regroup(self, grouping) -> None:
        """Have other rows from now on. ValueError."""
        with self._lock:
            self._flows.regroup(grouping)

    def _run(self):
        try:
            if self._drop_rights is not None:
                self._drop_rights()
            while not self._wait() and self._take():
                if not self._reading.running and time.monotonic() >= self._due:
                    self._due = time.monotonic() + self._seconds
                    with self._lock:
                        self._reading.begin()
                if self._reading.running:
                    self._read()
        except BaseException as error:
            self.failure = error
        finally:
            self.over = True
            os.eventfd_write(self._filled, 1)

    def _wait(self):
        """Wait until there is something to do. Whether the thread is to end."""
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        if self._reading.running:
            return bool(poll.poll(0))
        if poll.poll(_GATHER_S * 1000):
            return True
        poll.register(self._conntrack.fileno(), select.POLLIN)
        left = self._due - time.monotonic()
        return any(fd == self._stop for fd, _ in poll.poll(max(0, left) * 1000 + 1))

    def _take(self):
        """Take all records that are there. Whether more will come."""
        while (records := self._conntrack._next_batch(0)) is not None:
            if not records:
                return True
            with self._lock:
                self._flows.take(records)
        return False

    def _read(self):
        with self._lock:
            over = self._reading.advance(_READ_S)
        if not over:
            return
        now = time.monotonic()
        planned = max(self._seconds, _LAZY * self._reading.cost)
        self._due = max(self._due, self._due - self._seconds + planned)
        seconds, self._ended = now - self._ended, now
        with self._lock:
            totals = self._flows.end_interval(seconds, time.time_ns(), self._keep)
        conntrack = self._conntrack
        number = 1 if self.interval is None else self.interval.number + 1
        self.interval = Interval(
            number,
            time.time(),
            seconds,
            planned,
            planned > self._seconds,
            self._reading.cost,
            totals,
            conntrack.lost,
            conntrack.unallocated > 0,
            conntrack.recovered,
        )
        os.eventfd_write(self._filled, 1)
