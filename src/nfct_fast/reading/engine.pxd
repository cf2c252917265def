from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.records.batch cimport Batch
from nfct_fast.kernel.fork_guard cimport ForkGuard
from nfct_fast.reading.reader cimport Reader
from nfct_fast.records.ring cimport Ring
from nfct_fast.replay.player cimport Player
from nfct_fast.replay.recorder cimport Recorder
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.output.writer cimport Writer

# `lock` protects `consumer_active`, `closed`, `ended` and `released`, which consumer and close() share.
cdef class Engine:
    cdef readonly ForkGuard fork_guard
    cdef Ring ring
    cdef Batch batch
    cdef Reader reader
    cdef Player player               # of a recording; None: events are read. With it, most of the others are None
    cdef Recorder recorder           # or None
    cdef Resolver attribution
    cdef readonly object tracking    # a Tracking, or None
    cdef readonly object follower    # a Follower if all namespaces are monitored, or None
    cdef readonly object notices     # a Notices
    cdef object opener               # an Opener, if the resolver has none; else None
    cdef object thread               # the reading thread's identifier; None before it is started
    cdef object lock
    cdef int epoll                   # readable when the consumer has something to do
    cdef Wakeup wakeup               # in `epoll`: close() was called
    cdef bint closed                 # close() was called
    cdef bint ended                  # the threads have ended
    cdef bint released               # descriptors are closed and counts are final
    cdef bint counted                # the reader's counts are included in the three fields below
    cdef bint consumer_active        # a thread is within take(), or a task between begin_wait() and end_wait()
    cdef readonly unsigned long long undelivered        # flows received that nobody had taken when it was closed
    cdef readonly unsigned long long unreported_lost    # lost events whose report nobody had taken by then
    cdef readonly bint at_least                         # both are lower bounds
    cdef int check(self) except -1
    cdef object producer(self)
    cdef bint _begin_consuming(self) except -1
    cdef int watch(self, int fd, unsigned int events) except -1
    cdef int _fill_batch(self, int timeout) noexcept nogil
    cdef int _write_batches(self, Writer writer, int *result) noexcept nogil
    cdef int take(self, int timeout, Writer writer=*) except -2
    cdef void _count_undelivered(self) noexcept nogil
