"""The sources that are read, by number, and what those had counted that are gone."""
from libc.stdint cimport uint64_t
from nfct_fast.events.source cimport Source

cdef enum:
    SOURCES = 1024               # at once: flow_t.netns is their number

# One thread reads them; another may put them in, and free what the first has let go.
cdef class Sources:
    cdef list kept               # of Source or None, by number
    cdef void *at[SOURCES]       # the same, for use without the GIL
    cdef int bound               # all numbers are below it
    cdef readonly object past    # Counts
    cdef uint64_t past_reported
    cdef uint64_t past_reported_recovered
    cdef uint64_t past_reported_unmade
    # The source of a number, borrowed; NULL: there is none.
    cdef void *get(self, int number) noexcept nogil
    # The reading thread is done with it.
    cdef void let_go(self, int number) noexcept nogil
