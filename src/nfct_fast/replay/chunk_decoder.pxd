from libc.stdint cimport uint32_t, uint64_t
from nfct_fast.events.decoder cimport FlowDecoder
from nfct_fast.processes.process cimport ancestor_t, process_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.records.record cimport record_t
from nfct_fast.replay.recording_format cimport SLOTS

# One thread uses it. Each take...() is given what a chunk holds, without its chunk_t: 0, -errno, or BAD_CHUNK with the
# reason in `problem`.
cdef enum:
    BAD_CHUNK = -10000           # no errno is so large

cdef class ChunkDecoder:
    cdef FlowDecoder decoder
    cdef process_t *slots[SLOTS]         # a reference each, or NULL
    cdef const char *problem             # why a chunk was refused; NULL: none was
    cdef readonly uint64_t flows         # flow chunks taken
    cdef readonly uint64_t losses        # loss chunks
    # Put a process into its slot, whose number is left in *slot.
    cdef int take_process(self, const char *data, size_t size, uint32_t *slot) noexcept nogil
    # Fill in a record, which then owns its references.
    cdef int take_flow(self, const char *data, size_t size, record_t *record) noexcept nogil
    cdef int take_loss(self, const char *data, size_t size, record_t *record) noexcept nogil
    cdef int take_end(self, const char *data, size_t size) noexcept nogil
    cdef int _refuse(self, const char *problem) noexcept nogil
    cdef ancestor_t *_ancestors(self, const char *data, size_t size, uint32_t count, bint *wrong) noexcept nogil
    cdef int _take_owner(self, const char **data, size_t *size, owner_t *owner) noexcept nogil
    cdef process_t *_process(self, uint32_t number) noexcept nogil
