from libc.stdint cimport int64_t, uint64_t

from nfct_fast.sockets.socket_notes cimport SocketNotes
from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.processes.history cimport History

cdef class ProcessWatch:
    cdef History _history
    cdef SocketNotes _notes
    cdef ProcessReader _reader
    cdef object _thread
    cdef object _stop            # threading.Event
    cdef uint64_t _lost          # process events lost in total when all processes were read last
