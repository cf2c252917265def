from libc.stdint cimport int64_t, uint32_t, uint64_t
from nfct_fast.reading.intake cimport Intake
from nfct_fast.events.pacing cimport pacing_t
from nfct_fast.reading.recovery cimport Recovery
from nfct_fast.events.source cimport Source
from nfct_fast.events.sources cimport Sources
from nfct_fast.kernel.wakeup cimport Wakeup

# run() belongs to the reading thread; add(), retire() and stop() may be called from any other.
cdef class Reader:
    cdef readonly Intake intake
    cdef readonly Sources sources
    cdef Recovery recovery
    cdef object housekeeping     # a function to call about once a second, or None
    cdef int epoll               # descriptor of the epoll of all sources and of everything else that run() waits for
    cdef Wakeup sources_changed  # signals that add() or retire() was called
    cdef readonly object failure     # the exception that ended run(), or None
    cdef readonly object finished    # a lock that run() releases at its end
    cdef readonly uint64_t turns # how often run() has come round, about once a second, whatever happens
    cdef bint listing            # run() ends when all dumps are over
    cdef bint catch_up_due       # a source must be served although no event is queued
    cdef pacing_t pacing
    cdef int _watch(self, int fd, uint32_t number, uint32_t events=*) except -1
    cdef void _close_epoll(self) noexcept nogil
    cdef int _receive(self, Source source) noexcept nogil
    cdef int _serve(self, Source source) noexcept nogil
    cdef int _on_drained(self, Source source) noexcept nogil
    cdef int _catch_up(self) noexcept nogil
    cdef int _read_events(self) noexcept nogil
    cdef int _release(self, Source source) noexcept nogil
    cdef int _listed(self) noexcept nogil
    cdef void _finish_sources(self) noexcept nogil
