"""Counts of the flows that were taken, for metrics: by event, by how the owner was found, by delay, by unit."""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from nfct_fast.events.flow cimport (
    EVENT_DESTROY, EVENT_FLOW, EVENT_NEW, EVENT_UPDATE, FLOW_COUNTERS, FLOW_RECOVERED,
)
from nfct_fast.kernel.clock cimport monotonic_ns, realtime_ns
from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.processes.process cimport process_t
from nfct_fast.records.labels cimport event_name
from nfct_fast.records.owner cimport match_name, reason_name
from nfct_fast.records.record cimport RECORD_FLOW
from nfct_fast.records.unit_counts cimport UNIT_UNKNOWN, unit_count_t, units_find, units_free, units_open
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock

from typing import NamedTuple

# Upper bounds in ns: from what a single event takes to what a blocked output makes of it.
cdef int64_t[DELAY_BOUNDS] _BOUNDS = [
    100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000,
    250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000, 30_000_000_000]
DELAY_NAMES = ("kernel", "reception")


class UnitCount(NamedTuple):
    """What the flows of one unit or container come to. Its name is as the kernel has it, in bytes."""

    name: bytes                 # b"" for the two that have none: all for which there was no room, and unknown ones
    runtime: bytes              # of a container, b"" if it is not known
    is_container: bool
    flows: int
    sent: int                   # bytes
    received: int


class CountsSoFar(NamedTuple):
    """A copy of the counts."""

    events: dict                # counts by name, as in the next two
    matches: dict
    reasons: dict
    delays: dict                # by DELAY_NAMES: counts of the buckets, and the sum in seconds
    bounds: tuple               # of the buckets but the last, in seconds
    other: UnitCount
    unknown: UnitCount
    units: list


cdef dict _named(const uint64_t *counts, int size, const char *(*name)(unsigned char) noexcept nogil):
    return {name(<unsigned char>i).decode("ascii"): counts[i] for i in range(size) if name(<unsigned char>i) != NULL}


cdef object _unit(const unit_count_t *unit):
    return UnitCount(unit.text[:unit.size], unit.text[unit.size:unit.size + unit.runtime_size],
                     bool(unit.is_container), unit.flows, unit.sent, unit.received)


@cython.final
@cython.auto_pickle(False)
cdef class FlowCounts:
    """Counts of flows; so_far() copies them.

    events: the names of the events that are delivered, and "FLOW" for whole flows: units count the first of NEW, FLOW,
        DESTROY and UPDATE that is among them, so that no flow counts twice.
    """

    def __cinit__(self, events):
        for type, name in ((EVENT_NEW, "NEW"), (EVENT_FLOW, "FLOW"), (EVENT_DESTROY, "DESTROY"),
                           (EVENT_UPDATE, "UPDATE")):
            if name in events:
                self.flow_type = type
                break
        if not mutex_make(&self.mutex):
            raise MemoryError("mutex")
        self.mutex_made = True
        units_open(&self.units)

    def __dealloc__(self):
        units_free(&self.units)
        if self.mutex_made:
            pthread_mutex_destroy(&self.mutex)

    cdef void add(self, const record_t *records, int count) noexcept nogil:
        cdef int64_t now = realtime_ns()
        cdef int64_t monotonic = monotonic_ns()
        cdef const record_t *record
        cdef int i
        pthread_mutex_lock(&self.mutex)
        self.received = 0
        for i in range(count):
            record = &records[i]
            if record.kind != RECORD_FLOW:
                continue
            self.counts.events[record.flow.type] += 1
            if record.owner.process != NULL:
                self.counts.matches[record.owner.match] += 1
            else:
                self.counts.reasons[record.owner.reason] += 1
            self._add_delay(record, now)
            if record.flow.type == self.flow_type or record.flow.has & FLOW_COUNTERS:
                self._add_unit(record, monotonic)
        pthread_mutex_unlock(&self.mutex)

    cdef void _add_delay(self, const record_t *record, int64_t now) noexcept nogil:
        cdef bint received = record.flow.occurred <= 0 or record.flow.has & FLOW_RECOVERED
        cdef int64_t since = record.flow.time if received else record.flow.occurred
        cdef int64_t delay = max(<int64_t>0, now - since)     # the clock may have been set back
        cdef int bucket = self.bucket
        if since != self.received:
            bucket = 0
            while bucket < DELAY_BOUNDS and delay > _BOUNDS[bucket]:
                bucket += 1
            self.received, self.bucket = since, bucket
        self.counts.delays[received].buckets[bucket] += 1
        self.counts.delays[received].sum += <uint64_t>delay

    cdef void _add_unit(self, const record_t *record, int64_t now) noexcept nogil:
        cdef const process_t *process = record.owner.process
        cdef unit_count_t *unit
        if process == NULL:
            process = record.owner.cgroup
        unit = units_find(&self.units, NULL if process == NULL else &process.names, process, now)
        unit.flows += record.flow.type == self.flow_type
        if record.flow.has & FLOW_COUNTERS and (record.flow.type == EVENT_FLOW or record.flow.type == EVENT_DESTROY):
            unit.sent += record.flow.bytes[record.is_responder]
            unit.received += record.flow.bytes[not record.is_responder]

    def so_far(self) -> CountsSoFar:
        """Return a copy of the counts. Any thread may call this; it holds up whoever counts for less than 1 ms."""
        cdef counts_t counts
        cdef unit_count_t *units
        cdef size_t size
        cdef int count
        with nogil:
            pthread_mutex_lock(&self.mutex)
            counts = self.counts
            count = self.units.count
            size = count * sizeof(unit_count_t)
            units = <unit_count_t *>malloc(size)
            if units != NULL:
                memcpy(units, self.units.units, size)
            pthread_mutex_unlock(&self.mutex)
        if units == NULL:
            raise MemoryError("counts of units")
        try:
            named = [_unit(&units[i]) for i in range(count)]
        finally:
            free(units)
        delays = {name: ([counts.delays[i].buckets[j] for j in range(DELAY_BOUNDS + 1)], counts.delays[i].sum / 1e9)
                  for i, name in enumerate(DELAY_NAMES)}
        return CountsSoFar(
            _named(counts.events, EVENT_COUNT, event_name), _named(counts.matches, MATCH_COUNT, match_name),
            _named(counts.reasons, REASON_COUNT, reason_name), delays,
            tuple([_BOUNDS[i] / 1e9 for i in range(DELAY_BOUNDS)]), named[0], named[UNIT_UNKNOWN],
            named[UNIT_UNKNOWN + 1:])
