"""The ladder from a tuple to its owner."""
from libc.stdint cimport int64_t, uint64_t
from .directory cimport Directory
from .flow cimport tuple_t
from .inquiry cimport Inquiry
from .notes cimport Notes
from .owner cimport owner_t
from .process cimport process_t
from .record cimport record_t

cdef struct cgroup_entry_t:
    uint64_t id
    process_t *process       # see owner_t.cgroup

# One caller at a time.
cdef class Attribution:
    cdef readonly str mode
    cdef bint off
    cdef int unasked               # homes taken while off
    cdef Directory directory
    cdef Inquiry inquiry
    cdef readonly Notes notes      # None: the kernel takes none
    cdef readonly str missing      # why not, where it was wanted; else None
    cdef cgroup_entry_t paths[256]

    # A batch begins that was received at `heard`, CLOCK_MONOTONIC ns: nothing older than that will do.
    # `emptied`: the last time, on the same clock, that every event before it had been received.
    cdef void begin(self, int64_t heard, int64_t emptied) noexcept nogil
    # Fills in direction, owner and peer. record.flow.netns is what add_home gave for the namespace it was heard in.
    cdef void foresee(self, const record_t *record) noexcept nogil
    cdef void resolve(self, record_t *record) noexcept nogil

    # The reason why `out` has no process (REASON_NONE: it has), or NOWHERE: no namespace has the address.
    cdef int _end(self, int home, const tuple_t *end, bint originator, bint search, bint local,
                  owner_t *out) noexcept nogil
    cdef int _at(self, int index, const tuple_t *end, bint originator, owner_t *out) noexcept nogil
    cdef void _note_cgroup(self, owner_t *out) noexcept nogil
