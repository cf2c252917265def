from libc.stdint cimport int64_t, uint64_t
from .flow cimport flow_t
from .netlink cimport NetlinkSocket
from .seen cimport log_t, seen_t
from .table cimport Table

cdef enum sift_t:
    SIFT_SEED                # all entries are known from now on
    SIFT_SWEEP               # known ones that have ended are forgotten
    SIFT_RECOVER             # unknown ones are picked out

cdef class Source:
    cdef readonly NetlinkSocket socket
    cdef tuple groups
    cdef readonly Table table    # None: nothing is recovered
    cdef readonly uint64_t inode
    cdef readonly int index
    cdef bint overrun            # events were lost, and the table was not yet searched for them
    cdef bint stopping           # no table is read on
    cdef bint doubtful           # queued events may be of flows that were just recovered
    cdef log_t log               # entries whose NEW was delivered, or that were there before the start
    cdef bint due                # it is to be swept, whatever came
    cdef bint reading            # the table is to be read, to seed or to sweep,
    cdef bint asked              # and is being sent
    cdef uint64_t noted          # so many of the log are older than that reading; what it finds takes their place
    cdef seen_t reported         # and these, as a set, while it goes on
    cdef log_t living            # entries of the table
    cdef sift_t how              # what it is read for
    cdef seen_t recovered
    cdef uint64_t swept          # entries that lived when the log was last held against the table
    cdef int64_t active          # CLOCK_MONOTONIC ns of the last event
    cdef int64_t emptied         # and when last all events before it had been received
    cdef int64_t unsure          # what that was when the first of the events was lost that are now looked for
    cdef readonly uint64_t recoveries    # flows delivered from the table
    cdef readonly uint64_t told          # lost events that were told of
    cdef readonly uint64_t told_recovered
    cdef void lose(self) noexcept nogil
    cdef bint admit(self, const flow_t *flow) noexcept nogil
    cdef int begin_table(self) noexcept nogil
    cdef int next_table(self) noexcept nogil
    cdef void end_table(self, bint complete) noexcept nogil
    cdef void end_doubt(self) noexcept nogil
    cdef void begin_reading(self, sift_t how) noexcept nogil
    cdef int read_on(self) noexcept nogil
    cdef void end_reading(self) noexcept nogil
    cdef int _read_on(self) noexcept nogil
    cdef int _sift(self, int count) noexcept nogil
    cdef bint wants_sweep(self, int64_t now) noexcept nogil
    cdef uint64_t untold(self, uint64_t dropped) noexcept nogil
