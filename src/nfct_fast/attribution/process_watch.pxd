from libc.stdint cimport int64_t, uint64_t

from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.sockets.socket_notes cimport SocketNotes
from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.processes.history cimport History

cdef class ProcessWatch:
    cdef History _history
    cdef SocketNotes _notes
    cdef ProcessReader _reader
    cdef object _thread
    cdef object _stop                  # threading.Event
    cdef Opener _opener
    cdef Wakeup _wake                  # wakes the thread, to end or to make room for more notes
    cdef uint64_t _lost                # process events lost in total when all processes were last read
    # Have the thread make room for more notes.
    cdef void request_growth(self) noexcept nogil
