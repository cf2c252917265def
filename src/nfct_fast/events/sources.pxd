"""The sources that are read, by number, and what those had counted that are gone."""
from libc.stdint cimport uint64_t
from nfct_fast.events.source cimport Source

cdef enum:
    SOURCES = 1024               # at once: flow_t.netns is their number

# One thread reads them; another may put them in, and free what the first has let go.
cdef class Sources:
    cdef list by_number               # of Source or None, by number
    cdef void *pointers[SOURCES]       # the same, for use without the GIL
    cdef int bound               # all numbers are below it
    cdef readonly object retired    # Counts
    cdef uint64_t retired_reported_lost
    cdef uint64_t retired_reported_recovered
    cdef uint64_t retired_reported_unallocated
    # The source of a number, borrowed; NULL: there is none.
    cdef void *get(self, int number) noexcept nogil
    # The reading thread is done with it.
    cdef void release(self, int number) noexcept nogil
