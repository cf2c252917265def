from libc.stdint cimport int64_t, uint64_t
from stdatomic cimport atomic_bool
from nfct_fast.events.flow cimport flow_t
from nfct_fast.filters.flow_filter cimport FlowFilter
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.records.record cimport record_t
from nfct_fast.records.ring cimport Ring
from nfct_fast.replay.chunk_decoder cimport ChunkDecoder

# run() belongs to the thread that plays; stop() may be called from any other.
cdef class Player:
    cdef readonly str path
    cdef int fd                      # -1: closed
    cdef Ring ring
    cdef Wakeup wakeup               # stop() was called
    cdef atomic_bool stopping
    cdef readonly object failure     # the exception that ended run(), or None
    cdef readonly object finished    # a lock that run() releases at its end
    cdef readonly ChunkDecoder chunks    # has how many flows and losses came
    cdef FlowFilter flow_filter
    cdef unsigned char wanted_types[8]   # by EVENT_*
    cdef double speed                # seconds of the recording played in a second; 0: without waiting
    cdef int64_t began               # CLOCK_MONOTONIC ns when the first record was played
    cdef int64_t first               # its time; 0: none was played yet
    cdef char *buffer                # BUFFER bytes
    cdef size_t at                   # where in it the next chunk begins
    cdef size_t end                  # the bytes read into it
    cdef uint64_t offset             # of `buffer` in the file
    cdef bint over                   # CHUNK_END was read
    cdef readonly uint64_t filtered  # flows that were not wanted
    cdef readonly uint64_t named     # flows with a process
    cdef readonly uint64_t recovered     # flows that were read from the conntrack table
    cdef readonly uint64_t lost      # events that LOST records told of
    cdef readonly uint64_t unallocated   # LOST records of a lower bound
    cdef int _fill(self, size_t size) noexcept nogil
    cdef int _refuse(self, const char *problem) noexcept nogil
    cdef int _next(self, record_t *record) noexcept nogil
    cdef int _play(self) noexcept nogil
    cdef int _wait(self, int timeout) noexcept nogil
    cdef int _wait_until(self, int64_t early) noexcept nogil
    cdef int64_t _early(self, const record_t *record) noexcept nogil
    cdef int _wanted(self, record_t *record) noexcept nogil
    cdef bint _is_wanted(self, const flow_t *flow) noexcept nogil
