"""The sources in use, by number, and the counts of those that were released."""
from libc.stdint cimport uint64_t
from stdatomic cimport atomic_int, atomic_pointer_t, atomic_uint64_t
from nfct_fast.events.source cimport Source

cdef enum:
    SOURCES = 1024               # the most sources at once; flow_t.netns is a source's number

# Shared by two threads: the reading thread calls get() and release(), another one add() and collect(). Both access
# `pointers` and `bound`, and nothing else.
cdef class Sources:
    cdef list by_number          # by_number[i]: the Source with number i, or None
    cdef atomic_pointer_t pointers[SOURCES]  # the same, borrowed, for use without the GIL; NULL once released
    cdef atomic_int bound        # greater than all numbers in use
    cdef readonly object retired     # the Counts of all sources that were collected
    cdef atomic_uint64_t retired_reported_lost   # the sums of the same fields of these sources
    cdef atomic_uint64_t retired_reported_recovered
    cdef atomic_uint64_t retired_reported_unallocated
    # Return the source with that number, a borrowed reference; NULL if there is none.
    cdef void *get(self, int number) noexcept nogil
    # Note that the reading thread will not use the source again.
    cdef void release(self, int number) noexcept nogil
