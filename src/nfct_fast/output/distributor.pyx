"""Write batches to several outputs, each of which has a buffer of its own and never delays the others."""
cimport cython
from libc.errno cimport EINTR
from libc.string cimport memset
from nfct_fast.kernel.clock cimport realtime_ns
from nfct_fast.output.buffered_output cimport BufferedOutput
from nfct_fast.output.format_branch cimport PIECE, FormatBranch
from nfct_fast.output.record_writer cimport RecordWriter
from nfct_fast.records.record cimport RECORD_LOSS, record_t
from nfct_fast.records.taken_records cimport TakenRecords
from sys_socket cimport POLLIN, poll, pollfd

cdef enum:
    ROOM_MS = 5              # how long a patient one waits before it looks again whether there is room


@cython.final
@cython.auto_pickle(False)
cdef class Distributor(RecordWriter):
    """Formats records once for each format, and hands them to the outputs.

    Args:
        outputs: BufferedOutputs; those that have the same Formatter share what it makes.
        stop_fd: A descriptor that ends a wait for room when it becomes readable; put() then returns -EINTR.
        patient: Wait until all outputs have room instead of leaving anything out: nothing is lost meanwhile, because
            the records come from a file or a table.
    """
    cdef FormatBranch first
    cdef int stop_fd
    cdef bint patient
    cdef bint formatted      # a piece is waiting for room
    cdef int end             # of that piece in the batch

    def __cinit__(self, outputs, int stop_fd=-1, bint patient=False):
        cdef BufferedOutput one
        self.stop_fd, self.patient = stop_fd, patient
        by_format = {}
        for one in outputs:
            by_format.setdefault(id(one.formatter), []).append(one)
        for same in by_format.values():
            self.first = FormatBranch(same, self.first)

    cdef int put(self, TakenRecords batch) noexcept nogil:
        return self.resume(batch)

    cdef bint is_pending(self) noexcept nogil:
        return self.formatted

    cdef int resume(self, TakenRecords batch) noexcept nogil:
        cdef int result
        while batch.consumed < batch.count:
            if not self.formatted:
                self.end = self.first.format(batch, batch.consumed, min(batch.consumed + PIECE, batch.count))
                self.formatted = True
            result = self._await_room()
            if result < 0:
                return result
            self.first.hand_over()
            batch.consume(self.end)
            self.formatted = False
        return 0

    cdef int _await_room(self) noexcept nogil:
        cdef pollfd ready
        while self.patient and not self.first.has_room():
            ready.fd, ready.events, ready.revents = self.stop_fd, POLLIN, 0
            if poll(&ready, 1, ROOM_MS) > 0:
                return -EINTR
        return 0

    def hurry(self) -> None:
        """Wait for nothing any more, as the program has to end."""
        self.patient = False

    def write_loss(self, count, bint at_least=False) -> None:
        """Write a last LOST record to those outputs whose format has such records.

        Args:
            count: The number of events lost.
            at_least: Whether the count is a lower bound.
        """
        cdef record_t record
        memset(&record, 0, sizeof(record))
        record.kind = RECORD_LOSS
        record.loss.time = realtime_ns()
        record.loss.events = count
        record.loss.at_least = at_least
        self.first.format_one(&record)
        self.first.hand_over()
