from libc.stdint cimport int64_t, uint64_t
from stdatomic cimport atomic_bool

from nfct_fast.kernel.netlink cimport NetlinkSocket
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.processes.history cimport History

cdef class ProcEvents:
    cdef History _history
    cdef ProcessReader _reader
    cdef NetlinkSocket _socket
    cdef object _thread
    cdef Wakeup _wake
    cdef atomic_bool _stopping
    cdef readonly int failed             # the errno that ended the thread; 0: none
    cdef int _serve(self) noexcept nogil
    cdef int _receive(self) noexcept nogil
    # Wait until the queue is empty, for 1 ms at most: then all earlier events have been reported. Any thread may call
    # this.
    cdef void wait_drained(self) noexcept nogil
