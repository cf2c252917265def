from libc.stdint cimport int32_t, int64_t, uint64_t
from .cgroupfs cimport CgroupFs
from .flow cimport tuple_t
from .owner cimport owner_t
from .owners_bpf cimport OwnersBpf, bpf_owner_t
from .process cimport process_t
from .procevents cimport ProcEvents
from .processcache cimport ProcessCache, recall_t

# What a process surely was from one time to another, CLOCK_MONOTONIC ns.
cdef struct recent_t:
    process_t *process
    int32_t pid
    int64_t since
    int64_t to

# One caller at a time.
cdef class Notes:
    cdef readonly OwnersBpf owners
    cdef readonly ProcEvents events      # None: without them only living processes have a command line
    cdef readonly str events_missing
    cdef ProcessCache processes
    cdef CgroupFs cgroups
    cdef int64_t heard                   # CLOCK_BOOTTIME ns: the batch was received then,
    cdef int64_t emptied                 # and holds nothing that happened before this
    cdef int64_t ahead                   # what CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC
    cdef recent_t recent[64]             # by pid
    cdef int64_t patience                # ns this batch may still wait for news of processes
    cdef int searches                    # in the past that this batch may still make
    cdef int64_t credit                  # and all the batches for the moment
    cdef int64_t began                   # CLOCK_MONOTONIC ns: the last batch
    cdef void begin(self, int64_t heard, int64_t emptied) noexcept nogil

    # The owner of a socket that sees `end` as its tuple, in the namespace with this cookie (0: in any): 1 if it was
    # noted, and is named in `out`; 0; -1 if several processes used it and nobody can tell which one is meant.
    cdef int name(self, const tuple_t *end, uint64_t netns, bint originator, owner_t *out) noexcept nogil
    # The same, of the socket with this cookie.
    cdef bint name_socket(self, uint64_t cookie, owner_t *out) noexcept nogil
    cdef void _fill(self, const bpf_owner_t *note, uint64_t first, owner_t *out) noexcept nogil
    cdef process_t *_process(self, const bpf_owner_t *note, uint64_t first) noexcept nogil
    cdef process_t *_recall(self, const bpf_owner_t *note, int64_t when, recall_t *recall) noexcept nogil
    cdef process_t *_await(self, const bpf_owner_t *note, int64_t when, recall_t *recall) noexcept nogil
    cdef void _charge(self, int64_t since) noexcept nogil
