from libc.stdint cimport int64_t
from stdatomic cimport atomic_bool
from nfct_fast.attribution.resolver cimport Resolver
from nfct_fast.columns.batch_builder cimport BatchBuilder
from nfct_fast.records.taken_records cimport TakenRecords
from nfct_fast.kernel.fork_guard cimport ForkGuard
from nfct_fast.records.flow_counts cimport FlowCounts
from nfct_fast.reading.reader cimport Reader
from nfct_fast.records.ring cimport Ring
from nfct_fast.replay.player cimport Player
from nfct_fast.replay.recorder cimport Recorder
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.output.record_writer cimport RecordWriter

# `lock` protects `consumer_active`, `closed`, `ended` and `released`, which consumer and close() share.
cdef class Engine:
    cdef readonly ForkGuard fork_guard
    cdef Ring ring
    cdef TakenRecords batch
    cdef BatchBuilder rows           # of the Batch that is being gathered; None before the first
    cdef Reader reader
    cdef Player player               # of a recording; None: events are read. With it, most of the others are None
    cdef Recorder recorder           # or None
    cdef Recorder storer             # to a store, or None
    cdef readonly object store       # the StoreLink, or None
    cdef bint finishing              # the store was told of the end
    cdef readonly bint stored        # all that was handed to the store before close() is in it, or counted
    cdef Resolver attribution
    cdef readonly object tracking    # a Tracking, or None
    cdef readonly object follower    # a Follower if all namespaces are monitored, or None
    cdef readonly object notices     # a Notices
    cdef readonly object source_opener   # a SourceOpener, or None
    cdef readonly FlowCounts counts  # of what the consumer took; None: nobody counts
    cdef readonly object table_fill  # a TableFill, if `counts` are wanted and it can be read; or None
    cdef object opener               # an Opener if the resolver has none, else None
    cdef object thread               # identifier of the reading thread; None before it is started
    cdef object lock
    cdef int epoll                   # readable when the consumer has something to do
    cdef Wakeup wakeup               # wakes `epoll` when close() is called
    cdef atomic_bool closed          # close() was called
    cdef bint ended                  # the threads have ended
    cdef bint released               # descriptors are closed and counts are final
    cdef bint counted                # the reader's counts are included in the three fields below
    cdef bint consumer_active        # a thread is within take(), or a task between begin_wait() and end_wait()
    cdef readonly unsigned long long undelivered        # flows received that had not been taken at close()
    cdef readonly unsigned long long unreported_lost    # lost events whose report had not been taken at close()
    cdef readonly bint at_least                         # `undelivered` and `unreported_lost` are lower bounds
    cdef int check(self) except -1
    cdef object producer(self)
    cdef object failure(self)
    cdef int watch(self, int fd, unsigned int events) except -1
    cdef int _fill_batch(self, int timeout) noexcept nogil
    cdef int _write_batches(self, RecordWriter writer, int *result) noexcept nogil
    cdef int _gather(self, int64_t most, int64_t wait, bint block) noexcept nogil
    cdef bint _begin_taking(self) except -1
    cdef int _end_taking(self) except -1
    cdef object gather(self, int64_t most, int64_t wait, bint block)
    cdef int take(self, int timeout, RecordWriter writer=*) except -2
    cdef void _count_undelivered(self) noexcept nogil
