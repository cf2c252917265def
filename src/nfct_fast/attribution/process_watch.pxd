from libc.stdint cimport int64_t, uint64_t

from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.namespaces.opener cimport Opener
from nfct_fast.sockets.socket_notes cimport SocketNotes
from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.processes.history cimport History

cdef class ProcessWatch:
    cdef History _programs
    cdef SocketNotes _owners
    cdef ProcessReader _reader
    cdef object _thread
    cdef object _stop
    cdef Opener _opener
    cdef Wakeup _wake                  # to end, or to have more room made for notes
    cdef readonly str small            # why there is none; else None
    cdef void ask(self) noexcept nogil
    cdef uint64_t _lost                # of the events, when all processes were read last
