"""What the conntrack tables are read for: flows whose events were lost, and fingerprints that are not needed any more.

All of it in pieces between the events: whoever fills the table of his namespace, and has events of his own lost, keeps
nobody else's waiting.
"""
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset
from nfct_fast.events.flow cimport EVENT_NEW, FLOW_RECOVERED, flow_t
from nfct_fast.kernel.clock cimport monotonic_ns, realtime_ns
from nfct_fast.records.record cimport record_t
from nfct_fast.events.source cimport SIFT_RECOVER, SIFT_SWEEP

cdef enum:
    SLICE_NS = 2000000           # of reading tables, before it is looked for events again


@cython.final
@cython.auto_pickle(False)
cdef class Recovery:
    """Of all sources of one reading thread, which calls everything here."""

    def __cinit__(self, Intake intake not None, Sources sources not None):
        self.intake = intake
        self.sources = sources

    cdef void sweep(self) noexcept nogil:
        cdef int64_t now = monotonic_ns()
        cdef void *at
        cdef int i
        for i in range(self.sources.bound):
            at = self.sources.get(i)
            if at == NULL:
                continue
            if (<Source>at).socket.queued() == 0:
                (<Source>at).rest(now)
            if (<Source>at).wants_sweep(now):
                (<Source>at).begin_reading(SIFT_SWEEP)
                self.reading = True

    cdef int begin(self, Source source) noexcept nogil:
        source.count()
        if source.table is None:
            source.overrun = False
            return self.intake.tell_lost(source, False)
        source.begin_reading(SIFT_RECOVER)
        self.reading = True
        return 0

    cdef int read_on(self) noexcept nogil:
        cdef int64_t until = monotonic_ns() + SLICE_NS
        cdef int result = 0
        cdef void *at
        cdef int i
        cdef int bound = self.sources.bound
        cdef int turn = self.turn
        self.reading = False
        for i in range(bound):
            at = self.sources.get((turn + i) % bound)
            if at == NULL:
                continue
            # A table that cannot be read does not end the events: of it, what was known stays known, and what was lost is
            # counted.
            while (<Source>at).reading and result == 0 and monotonic_ns() < until:
                (<Source>at).read_on()
                result = self._deliver_missed(<Source>at)
                self.turn = (turn + i + 1) % bound      # whoever has the largest table has no more of the time for that
            self.reading = self.reading or (<Source>at).reading
        return result

    cdef void end(self, Source source) noexcept nogil:
        while source.reading:
            source.read_on()
            self._deliver_missed(source)

    cdef int settle(self, Source source) noexcept nogil:
        source.end_doubt()
        source.socket.count_lost()
        if source.socket.lost + source.socket.unmade != source.missing:
            source.mark_overrun()
        return self.intake.tell_lost(source, source.partial)

    cdef int _deliver_missed(self, Source source) noexcept nogil:
        """Deliver those of the missed flows that are wanted; 0 or -errno."""
        cdef int64_t now = realtime_ns()
        cdef record_t *records
        cdef flow_t *flows = source.found
        cdef int room = 0
        cdef int i = 0
        cdef int kept
        cdef int result
        while i < source.missed:
            records = self.intake.room(&room)
            if records == NULL:
                while i < source.missed:
                    kept = self.intake.is_wanted(&flows[i])
                    source.found_again(kept)
                    self.intake.unread += kept
                    i += 1
                return 0
            kept = 0
            while i < source.missed and kept < room:
                if self.intake.is_wanted(&flows[i]):
                    memset(&records[kept], 0, sizeof(record_t))
                    records[kept].flow = flows[i]
                    records[kept].flow.type = EVENT_NEW
                    records[kept].flow.has |= FLOW_RECOVERED
                    records[kept].flow.time = now
                    kept += 1
                i += 1
            source.found_again(kept)
            result = self.intake.deliver(source, records, kept, source.began)
            if result < 0:
                return result
        return 0
