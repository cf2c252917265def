"""One record for each flow, at its end: the DESTROY event with the owners that were found when the flow began.

Who began a flow is remembered from its NEW event (records/live_flows.pyx). At its end the kernel's notes add who else
used it. Of a flow that is not remembered - older than the start, its NEW event lost, or displaced - the DESTROY event's
own look-up says what it can, and the record that it is `forgotten`.
"""
cimport cython
from libc.string cimport memset
from nfct_fast.events.flow cimport (
    EVENT_DESTROY, EVENT_FLOW, EVENT_NEW, FLOW_FORGOTTEN, FLOW_RECOVERED,
)
from nfct_fast.records.owner cimport (
    REASON_CLOSED, REASON_EXITED, REASON_FORGOTTEN, REASON_ORPHANED, owner_t,
)
from nfct_fast.records.record cimport record_drop


cdef void _explain(owner_t *owner) noexcept nogil:
    # That the socket is gone is no wonder at the end of its flow.
    if owner.reason == REASON_CLOSED or owner.reason == REASON_EXITED or owner.reason == REASON_ORPHANED:
        owner.reason = REASON_FORGOTTEN


@cython.final
@cython.auto_pickle(False)
cdef class FlowEnds:
    """Turns the events of one reading thread into records of whole flows.

    Args:
        attribution: finds the owners.
        live: remembers them.
        begins_wanted: whether NEW events are delivered, too.
    """

    def __cinit__(self, Resolver attribution not None, LiveFlows live not None, bint begins_wanted):
        self.attribution = attribution
        self.live = live
        self.begins_wanted = begins_wanted

    cdef void begin(self, Source source, record_t *records, int count) noexcept nogil:
        cdef int i
        for i in range(count):
            if records[i].flow.type == EVENT_DESTROY:
                records[i].live = self.live.take(&records[i].flow)
                if records[i].live == 0:
                    source.mark_ended(&records[i].flow)
            elif records[i].flow.type == EVENT_NEW:
                if not records[i].flow.has & FLOW_RECOVERED or not source.has_ended(&records[i].flow):
                    records[i].live = self.live.begin(
                        &records[i].flow, source.losses, self.attribution.times.drained_boot)

    cdef int finish(self, Source source, record_t *records, int count) noexcept nogil:
        cdef int kept = 0
        cdef int i
        for i in range(count):
            if records[i].flow.type == EVENT_NEW:
                if records[i].live:
                    self.live.keep(records[i].live, &records[i], self.begins_wanted)
                if not self.begins_wanted:
                    record_drop(&records[i])
                    continue
            elif records[i].flow.type == EVENT_DESTROY:
                self._end(source, &records[i])
            if kept != i:
                records[kept] = records[i]
            kept += 1
        return kept

    cdef void _end(self, Source source, record_t *record) noexcept nogil:
        cdef int64_t since
        cdef bint alone, whole
        if record.live:
            since = self.live.flows[record.live].since
            # After a loss it may be another flow with the same tuple and id: its NEW was lost, and the DESTROY of the
            # one that is remembered.
            whole = self.live.flows[record.live].losses == source.losses
            self.live.give(record.live, record)
            alone = self.attribution.add_users(record, since)
            record.flow.type = EVENT_FLOW
            if whole or alone:
                return
            record_drop(record)
            memset(&record.owner, 0, sizeof(owner_t))
            memset(&record.peer, 0, sizeof(owner_t))
            record.live = record.direction = record.is_responder = 0
            record.began = 0
            self.attribution.resolve(record, 1)
        record.flow.type = EVENT_FLOW
        record.flow.has |= FLOW_FORGOTTEN
        _explain(&record.owner)
        _explain(&record.peer)
