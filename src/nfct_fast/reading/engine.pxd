from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.records.batch cimport Batch
from nfct_fast.kernel.fork_guard cimport ForkGuard
from nfct_fast.reading.reader cimport Reader
from nfct_fast.records.ring cimport Ring
from nfct_fast.output.writer cimport Writer

cdef class Engine:
    cdef readonly ForkGuard fork_guard
    cdef Ring ring
    cdef Batch batch
    cdef Reader reader
    cdef Resolver attribution
    cdef readonly object tracking    # a Tracking, or None
    cdef readonly object follower    # a Follower, where all namespaces are heard, or None
    cdef readonly object news        # News
    cdef object opener                 # a Opener, where attribution has none
    cdef object thread           # its number; None: not begun
    cdef object lock
    cdef int epoll
    cdef int wake
    cdef bint closed
    cdef bint ended              # and its thread is gone,
    cdef bint tallied
    cdef bint released           # and all descriptors
    cdef bint taking
    cdef readonly unsigned long long untaken    # flows that were received, and that nobody had taken when it was closed
    cdef readonly unsigned long long unsaid     # lost events whose LOST record nobody had taken then
    cdef readonly bint inexact   # they may be more
    cdef int check(self) except -1
    cdef int watch(self, int fd, unsigned int events) except -1
    cdef int _fill(self, int timeout) noexcept nogil
    cdef int _pass(self, Writer writer, int *result) noexcept nogil
    cdef int turn(self, int timeout, Writer writer=*) except -2
    cdef void _tally(self) noexcept nogil
