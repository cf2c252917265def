"""`Batches`: what Conntrack.batches() returns, an iterator for threads and for tasks."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.reading.engine cimport Engine

cdef enum:
    MOST_ROWS = 1 << 24          # so that 32 bits hold any offset of an address as text


@cython.final
@cython.auto_pickle(False)
cdef class Batches:
    """An iterator and an asynchronous iterator of `Batch`; it ends when the Conntrack is stopped or closed.

    A wait that is interrupted or cancelled loses nothing: the rows are in the next batch of this Conntrack.
    """
    cdef object conntrack        # lives for as long as it is iterated
    cdef readonly Engine engine
    cdef int64_t most
    cdef int64_t wait

    def __init__(self, conntrack, Engine engine not None, max_rows, double max_wait):
        if not 1 <= max_rows <= MOST_ROWS:
            raise ValueError(f"max_rows {max_rows}: must be from 1 to {MOST_ROWS:,}")
        if not 0 <= max_wait <= 86400:
            raise ValueError(f"max_wait {max_wait}: must be from 0 to 86400 seconds")
        self.conntrack = conntrack
        self.engine = engine
        self.most = max_rows
        self.wait = <int64_t>(max_wait * 1e9)

    cdef object _take(self, bint block):
        """A Batch; None if there is none yet, False if none will come."""
        self.engine.fork_guard.check("this Conntrack")
        batch = self.engine.gather(self.most, self.wait, block)
        if batch is False and (failure := self.engine.failure()) is not None:
            raise failure
        return batch

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            # No Python code runs between here and the end but what a signal's handler does: a ^C loses no batch.
            PyErr_CheckSignals()
            batch = self._take(True)
            if batch is False:
                raise StopIteration
            if batch is not None:
                return batch

    def __aiter__(self):
        return self

    def __anext__(self):
        # Imported here: asyncio takes 40 ms to load, and few need it.
        from nfct_fast.reading.event_loop import next_batch
        return next_batch(self)

    def take_now(self):
        """Return a Batch if it is due, None if it is not yet. StopAsyncIteration if no more will come."""
        batch = self._take(False)
        if batch is False:
            raise StopAsyncIteration
        return batch

    @property
    def gathered(self) -> int:
        """Rows of the batch that is not due yet."""
        return 0 if self.engine.rows is None or self.engine.rows.table == NULL else self.engine.rows.table.rows

    def seconds_left(self) -> float | None:
        """Seconds until what was gathered is due; None if there is nothing."""
        if self.engine.rows is None or not self.engine.rows.has_any():
            return None
        return max(0, self.engine.rows.begun + self.wait - monotonic_ns()) / 1e9
