from nfct_fast.records.taken_records cimport TakenRecords

cdef class RecordWriter:
    # Write the rest of a batch, and consume the records that were taken over. 0; -EINTR if the program is asked to end:
    # see to that, and call resume(); another -errno if nothing can be written any more.
    cdef int put(self, TakenRecords batch) noexcept nogil
    # How many ms from now put() has to be called, though perhaps without records; -1: it has not.
    cdef int due_ms(self) noexcept nogil
    # Whether put() was interrupted before everything was written: call resume() before the next put().
    cdef bint is_pending(self) noexcept nogil
    # Write the rest; as put().
    cdef int resume(self, TakenRecords batch) noexcept nogil

cdef object writer_error(int result)      # the exception for a -errno of put()
