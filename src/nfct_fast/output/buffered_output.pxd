from libc.stdint cimport int64_t, uint64_t
from posix_pthread cimport pthread_mutex_t
from stdatomic cimport atomic_bool
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.output.target cimport Target, entry_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef struct block_t:
    char *data
    entry_t *entries         # what is in `data`
    size_t length            # bytes in `data`
    size_t count             # entries

cdef class BufferedOutput:
    cdef readonly Formatter formatter
    cdef Target target
    cdef BufferedOutput next     # of those with the same format
    cdef pthread_mutex_t mutex
    cdef block_t blocks[2]       # one is filled while the other is written
    cdef int filling
    cdef size_t at               # of the other one: entries done,
    cdef size_t offset           # and their bytes
    cdef uint64_t missing        # flows left out since the last report of a loss among the entries
    cdef uint64_t left_out       # flows left out in all
    cdef bint dead               # nothing will ever be taken again
    cdef atomic_bool stopping
    cdef atomic_bool reopening
    cdef int failing             # 1: the last attempt failed, 2: and the operator knows
    cdef int64_t deadline       # CLOCK_MONOTONIC ns when delivery is given up; 0: not yet known
    cdef int64_t quiet_until     # CLOCK_MONOTONIC ns until which the operator is told of no failure again
    cdef text_buffer_t line      # scratch
    cdef Wakeup wakeup           # there is something to do
    cdef Wakeup ending           # delivery has to end soon
    cdef object notices
    cdef object finished         # a lock that is held while the thread runs
    cdef bint started
    cdef object reason           # why flows are left out
    # Copy entries, or leave flows out if there is no room; here, and in all those of `next`.
    cdef void add(self, const char *data, const entry_t *entries, size_t count) noexcept nogil
    # Leave flows out.
    cdef void leave_out(self, uint64_t flows) noexcept nogil
    # Whether add() of up to HALF bytes would leave nothing out, here and in those of `next`.
    cdef bint has_room(self) noexcept nogil
    cdef void _add(self, const char *data, const entry_t *entries, size_t count) noexcept nogil
    cdef void _report_missing(self, block_t *block) noexcept nogil
    cdef void _advance(self, size_t entries) noexcept nogil
    cdef int _write_next(self) noexcept nogil
    cdef uint64_t _unwritten(self) noexcept nogil
