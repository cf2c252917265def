from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nfct_fast.columns.process_facts cimport facts_t
from nfct_fast.columns.table cimport spare_t, table_t
from nfct_fast.events.flow cimport flow_t, tuple_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.processes.identity cimport Identity
from nfct_fast.records.presentation cimport Presentation
from nfct_fast.records.record cimport loss_t, record_t
from nfct_fast.records.taken_records cimport TakenRecords

# The name of a user or group that was found last.
ctypedef struct names_t:
    uint32_t id
    bint is_known            # `code` is that of `id`
    int32_t code             # index of the name; -1: there is none

cdef class BatchBuilder:
    cdef table_t *table              # NULL: nothing was added since the last finish()
    cdef table_t *finished           # what finish() made of it, until pop()
    cdef spare_t *spare              # a reference: where the memory of batches that are gone comes back
    cdef facts_t facts
    cdef bytes metadata              # of the schema, as Arrow has it
    cdef const char *metadata_at     # the same, for use without the GIL
    cdef size_t metadata_size
    cdef uint64_t key[2]             # of the texts' hash
    cdef int64_t begun               # CLOCK_MONOTONIC ns when the first row or loss was added
    cdef int64_t usual               # rows of the last batch: what is made room for at first
    cdef int8_t labels[6][32]        # of LABELS: the index of each label's number
    cdef int32_t protocols[512]      # the index of each protocol's name, those of IPv6 from 256 on; -1: none yet
    cdef uint8_t family              # address family of the last row
    cdef names_t names[2][2]         # of the owner's user and group, and of the peer's
    # Add records and consume them until there are `most` rows. 0, or -ENOMEM: what was added stays.
    cdef int add(self, TakenRecords records, int64_t most) noexcept nogil
    # Whether there is anything: a row, or a loss.
    cdef bint has_any(self) noexcept nogil
    # Whether no more is to be added: there are `most` rows, or their texts take as much memory as they may.
    cdef bint is_full(self, int64_t most) noexcept nogil
    # Make a batch of what was added, for pop(), and be empty. Only if has_any(), and after pop() of the last one.
    cdef void finish(self) noexcept nogil
    # The Batch that finish() made, once; then None.
    cdef object pop(self)
    # Drop what was added.
    cdef void clear(self) noexcept nogil
    cdef bint has_any_loss(self) noexcept nogil
    cdef void _put_loss(self, const loss_t *loss) noexcept nogil
    cdef bint _begin(self) noexcept nogil
    cdef bint _label(self, int dictionary, int number, const char *name) noexcept nogil
    cdef int _put(self, const record_t *record, int64_t most, Presentation presentation) noexcept nogil
    cdef bint _name(self, names_t *last, const owner_t *owner, bint is_group, Identity identity) noexcept nogil
    cdef bint _find_names(self, const owner_t *owner, int end, Identity identity) noexcept nogil
    cdef void _put_community_ids(self, const flow_t *flow, Presentation presentation) noexcept nogil
    cdef void _put_community_id(self, int column, int valid, const tuple_t *tuple, uint16_t seed) noexcept nogil
    cdef int32_t _protocol(self, const tuple_t *tuple) noexcept nogil
    cdef int32_t _entry(self, const owner_t *owner, Identity identity) noexcept nogil
    cdef void _put_flow(self, const flow_t *flow) noexcept nogil
    cdef void _put_numbers(self, const flow_t *flow) noexcept nogil
    cdef void _put_end(self, const flow_t *flow, int64_t began) noexcept nogil
    cdef void _put_address(self, int text, int packed, const uint8_t *address, uint8_t family) noexcept nogil
    cdef void _put_no_address(self, int text, int packed) noexcept nogil
    cdef void _put_owner(self, int end, const owner_t *owner, int32_t entry, const names_t *names) noexcept nogil
