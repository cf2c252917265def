"""The base class of what writes batches of records: to one output, or to several."""
cimport cython
from libc.errno cimport ENOMEM
from nfct_fast.output.sink cimport sink_error


@cython.auto_pickle(False)
cdef class RecordWriter:
    """What takes batches over from a Conntrack without the GIL. Abstract; see Writer and Distributor."""

    cdef int put(self, TakenRecords batch) noexcept nogil:
        return 0

    cdef int due_ms(self) noexcept nogil:
        return -1

    cdef bint is_pending(self) noexcept nogil:
        return False

    cdef int resume(self, TakenRecords batch) noexcept nogil:
        return 0


cdef object writer_error(int result):
    return MemoryError("formatting output") if result == -ENOMEM else sink_error(result)
