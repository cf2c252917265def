"""What every format of output has in common."""
cimport cython


@cython.auto_pickle(False)
cdef class Formatter:
    """Turns a record into one line of output. Abstract: see Template."""

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        pass
