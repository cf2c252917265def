"""Dump conntrack tables, to recover flows whose event was lost and to forget flows that have ended.

Dumps are done in pieces between events, so that a user who fills the table of a namespace of their own, or overruns its
socket, delays nobody else's flows.
"""
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset
from nfct_fast.events.flow cimport EVENT_ENTRY, EVENT_NEW, FLOW_RECOVERED, flow_t
from nfct_fast.kernel.clock cimport monotonic_ns, realtime_ns
from nfct_fast.records.record cimport record_t
from nfct_fast.events.source cimport PURPOSE_LIST, PURPOSE_RECOVER, PURPOSE_SWEEP

cdef enum:
    SLICE_NS = 2000000           # of dumping before events are read again


@cython.final
@cython.auto_pickle(False)
cdef class Recovery:
    """The recovery of lost events for all sources of one reading thread."""

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
                (<Source>at).note_idle(now)
            if (<Source>at).wants_sweep(now):
                (<Source>at).begin_dump(PURPOSE_SWEEP)
                self.in_progress = True

    cdef int begin(self, Source source) noexcept nogil:
        source.count_losses()
        if source.dump is None:
            source.clear_overrun()
            return self.intake.report_loss(source, False)
        source.begin_dump(PURPOSE_RECOVER)
        self.in_progress = True
        return 0

    cdef int advance(self) noexcept nogil:
        cdef int64_t until = monotonic_ns() + SLICE_NS
        cdef int result = 0
        cdef void *at
        cdef int i
        cdef int bound = self.sources.bound
        cdef int first = self.next_source
        self.in_progress = False
        for i in range(bound):
            at = self.sources.get((first + i) % bound)
            if at == NULL:
                continue
            # A failed dump does not end the reading thread: the log keeps what it had, and the losses are counted.
            while (<Source>at).dump_in_progress and result == 0 and monotonic_ns() < until:
                (<Source>at).advance_dump()
                result = self._deliver_missed(<Source>at)
                self.next_source = (first + i + 1) % bound      # so that a large table gets no more time than others
            self.in_progress = self.in_progress or (<Source>at).dump_in_progress
        return result

    cdef void finish(self, Source source) noexcept nogil:
        while source.dump_in_progress:
            source.advance_dump()
            self._deliver_missed(source)

    cdef int report_unrecovered(self, Source source) noexcept nogil:
        source.finish_deduplicating()
        source.socket.count_lost()
        if source.socket.lost + source.socket.unallocated != source.losses_counted:
            source.mark_overrun()
        return self.intake.report_loss(source, source.dump_incomplete)

    cdef int _deliver_missed(self, Source source) noexcept nogil:
        """Deliver the source's missed flows that are wanted. 0 or -errno.

        Those that are not are made up for, too, if the socket filter had let their events through.
        """
        cdef int64_t now = realtime_ns()
        cdef record_t *records
        cdef flow_t *flows = source.missed_flows
        cdef int room = 0
        cdef int i = 0
        cdef int kept, found
        cdef int result
        while i < source.missed_count:
            records = self.intake.room(&room)
            if records == NULL:
                while i < source.missed_count:
                    source.add_recovered(self.intake.flow_filter.is_heard(&flows[i]))
                    self.intake.undelivered += self.intake.is_wanted(source, &flows[i])
                    i += 1
                return 0
            kept = found = 0
            while i < source.missed_count and kept < room:
                if not self.intake.flow_filter.is_heard(&flows[i]):
                    i += 1
                    continue
                found += 1
                if self.intake.is_wanted(source, &flows[i]):
                    memset(&records[kept], 0, sizeof(record_t))
                    records[kept].flow = flows[i]
                    if source.purpose == PURPOSE_LIST:
                        records[kept].flow.type = EVENT_ENTRY
                    else:
                        records[kept].flow.type = EVENT_NEW
                        records[kept].flow.has |= FLOW_RECOVERED
                    records[kept].flow.time = now
                    kept += 1
                else:
                    self.intake.filtered += 1
                i += 1
            source.add_recovered(found)
            result = self.intake.deliver(source, records, kept, source.recovery_since)
            if result < 0:
                return result
        return 0
