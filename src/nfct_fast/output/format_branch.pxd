from nfct_fast.output.buffered_output cimport BufferedOutput
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.output.target cimport entry_t
from nfct_fast.records.record cimport record_t
from nfct_fast.records.taken_records cimport TakenRecords
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef enum:
    PIECE = 256              # most records that are formatted at a time

cdef class FormatBranch:
    cdef Formatter formatter
    cdef BufferedOutput first    # of those with this format
    cdef FormatBranch next       # another format
    cdef text_buffer_t out
    cdef entry_t entries[PIECE]
    cdef size_t count            # entries in `out`
    cdef size_t flows            # that could not be formatted, as memory is exhausted
    # Format records from `begin` on, up to `end`, here and in all of `next`. Return the number after the last.
    cdef int format(self, TakenRecords batch, int begin, int end) noexcept nogil
    cdef void format_one(self, const record_t *record) noexcept nogil
    cdef void hand_over(self) noexcept nogil         # give what was formatted to the outputs
    cdef bint has_room(self) noexcept nogil          # see BufferedOutput
    cdef void _put(self, const record_t *record) noexcept nogil
    cdef void _format_all(self, TakenRecords batch, int begin, int end) noexcept nogil
