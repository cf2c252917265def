"""Records taken from the ring, in order: written straight from its memory, or made into Flow objects."""
cimport cython
from nfct_fast.records.owner cimport owner_redact
from nfct_fast.records.record cimport RECORD_FLOW, flow_object, loss_t, record_drop

from nfct_fast.records.loss import Lost, LostEvents


cdef object _lost(const loss_t *loss):
    return Lost(loss.events, loss.since or None, loss.time, loss.at_least, loss.netns_inode or None)


@cython.final
@cython.auto_pickle(False)
cdef class TakenRecords:
    """An iterator of the `Flow` objects of one batch. Valid until the next batch is read."""

    def __cinit__(self, Ring ring not None, ForkGuard fork_guard not None, Presentation presentation=None,
                  Redactor redactor=None):
        self.ring = ring
        self.fork_guard = fork_guard
        self.presentation = presentation if presentation is not None else Presentation()
        self.redactor = redactor

    cdef void consume(self, int until) noexcept nogil:
        while self.consumed < until:
            record_drop(&self.records[self.consumed])
            self.consumed += 1

    cdef void clear(self) noexcept nogil:
        cdef int count = self.count
        self.consume(count)
        self.count = self.consumed = 0
        if count:
            self.ring.release(count)

    cdef int fill(self) noexcept nogil:
        cdef int count = 0
        cdef int i
        self.clear()
        self.records = self.ring.take(&count)
        self.count = max(0, count)
        if self.redactor is not None:       # here, before anything can use the records, so that no use can forget it
            for i in range(self.count):
                owner_redact(&self.records[i].owner, self.redactor)
                owner_redact(&self.records[i].peer, self.redactor)
        if self.counts is not None and self.count:
            self.counts.add(self.records, self.count)
        return count

    def __len__(self):
        return self.count - self.consumed

    def __iter__(self):
        return self

    def __next__(self):
        record = self.next_one(True)
        if record is None:
            raise StopIteration
        return record

    cdef object next_one(self, bint may_raise):
        cdef loss_t *loss
        self.fork_guard.check("these records")
        while self.consumed < self.count:
            if self.records[self.consumed].kind == RECORD_FLOW:
                self.consumed += 1
                return flow_object(&self.records[self.consumed - 1], self.presentation)
            loss = &self.records[self.consumed].loss
            if self.on_loss == LOSS_COUNTED or loss.events == 0 and not loss.at_least:    # all of them were recovered
                self.consumed += 1
            elif self.on_loss == LOSS_YIELDED:
                self.consumed += 1
                return _lost(loss)
            elif may_raise:
                self.consumed += 1
                raise LostEvents(_lost(loss))
            else:
                return None
        return None
