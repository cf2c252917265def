"""An expression as a program over a flow and its owners."""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from nfct_fast.events.flow cimport flow_t
from nfct_fast.filters.name_match cimport piece_t
from nfct_fast.processes.process cimport process_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.record cimport record_t

ctypedef struct range_t:
    uint64_t low
    uint64_t high            # included

ctypedef struct address_range_t:
    uint8_t low[16]          # as in tuple_t
    uint8_t high[16]         # included

ctypedef struct pattern_t:
    uint32_t first           # of its pieces
    uint32_t count

ctypedef struct step_t:
    uint64_t mask            # of a number, before it is compared
    uint32_t first           # of its ranges, address ranges or patterns
    uint32_t count
    int32_t yes              # the step that follows if the condition is true, ACCEPT or REFUSE; always a later one
    int32_t no
    uint8_t field            # FIELD_*
    uint8_t ends             # END_*

# Immutable once it is made: any thread may use it.
cdef class FlowProgram:
    cdef step_t *steps
    cdef range_t *ranges
    cdef address_range_t *addresses
    cdef pattern_t *patterns
    cdef piece_t *pieces
    cdef bytes text          # of the pieces
    cdef int32_t start       # the first step, ACCEPT or REFUSE
    # Whether the expression is true. record: with owners; NULL if the program has conditions of the flow only.
    cdef bint passes(self, const flow_t *flow, const record_t *record) noexcept nogil
    cdef bint _holds(self, const step_t *step, const flow_t *flow, const record_t *record) noexcept nogil
    cdef bint _has_address(self, const step_t *step, const flow_t *flow) noexcept nogil
    cdef bint _is_within(self, const step_t *step, const uint8_t *address) noexcept nogil
    cdef bint _has_number(self, const step_t *step, uint64_t value) noexcept nogil
    cdef bint _has_name(self, const step_t *step, const char *text, size_t size) noexcept nogil
    cdef bint _owner_has(self, const step_t *step, const owner_t *owner) noexcept nogil
    cdef bint _has_cmdline(self, const step_t *step, const process_t *process) noexcept nogil
    cdef int _keep_ranges(self, list ranges, list addresses) except -1
    cdef int _keep_patterns(self, list patterns) except -1
