"""The base class of all output formats."""
cimport cython


@cython.auto_pickle(False)
cdef class Formatter:
    """A format that turns a record into one line of output. Abstract; see Template and JsonLines."""

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        pass
