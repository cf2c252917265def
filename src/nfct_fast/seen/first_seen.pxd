"""Marks flows to an address or a port to which their program was never seen to talk before."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from nfct_fast.filters.flow_filter cimport FlowFilter
from nfct_fast.processes.process cimport process_t
from nfct_fast.records.record cimport record_t
from nfct_fast.seen.seen_set cimport SeenSet, seen_entry_t
from nfct_fast.text.text_buffer cimport text_buffer_t

cdef enum:
    LOOKED = 64              # flows that are looked for at once

# What a flow's destination and port are called in the set.
ctypedef struct sought_t:
    uint64_t destination     # 0: it is not looked for
    uint64_t port

# Used by the reading thread only, except the readonly counts.
cdef class FirstSeen:
    cdef readonly SeenSet known
    cdef uint64_t key[2]
    cdef sought_t sought[LOOKED]
    cdef uint32_t now                # seconds since the epoch
    cdef readonly uint64_t marked    # flows that were marked and wanted
    cdef bint kept                   # what is new is collected in `news`
    cdef text_buffer_t news          # what a CHUNK_SEEN is: entries that are new, or were seen again after hours
    # Mark the first `count` records, drop those that are not wanted, move the others together, and return how many
    # those are. What is not wanted counts as not seen.
    cdef int keep_wanted(self, FlowFilter flow_filter, record_t *records, int count) noexcept nogil
    cdef uint64_t _subject(self, const process_t *process) noexcept nogil
    cdef uint64_t _hash(self, uint64_t subject, uint64_t kind, const uint64_t *address) noexcept nogil
    cdef void _seek(self, const record_t *record, sought_t *sought) noexcept nogil
    cdef void _look(self, record_t *record, const sought_t *sought) noexcept nogil
    cdef int _mark(self, uint64_t hash, uint64_t subject, uint64_t budget, int mark, int last_mark) noexcept nogil
    cdef void _keep(self, const record_t *record, const sought_t *sought) noexcept nogil
    cdef void _add(self, uint64_t hash, uint16_t group, uint16_t count, uint32_t last) noexcept nogil
    cdef void _count(self, uint64_t budget, uint16_t group) noexcept nogil
    cdef void _tell(self, const seen_entry_t *entry) noexcept nogil
