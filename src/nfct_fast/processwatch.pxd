from libc.stdint cimport int64_t, uint64_t

from .owners_bpf cimport OwnersBpf
from .process cimport process_t
from .processreader cimport ProcessReader
from .programs cimport Programs

cdef class ProcessWatch:
    cdef Programs _programs
    cdef OwnersBpf _owners
    cdef ProcessReader _reader
    cdef object _thread
    cdef object _stop
    cdef uint64_t _lost                # of the events, when all processes were read last
