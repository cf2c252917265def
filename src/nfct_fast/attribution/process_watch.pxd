from libc.stdint cimport int64_t, uint64_t

from nfct_fast.sockets.socket_notes cimport OwnersBpf
from nfct_fast.processes.process cimport process_t
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.processes.history cimport Programs

cdef class ProcessWatch:
    cdef Programs _programs
    cdef OwnersBpf _owners
    cdef ProcessReader _reader
    cdef object _thread
    cdef object _stop
    cdef uint64_t _lost                # of the events, when all processes were read last
