from libc.stdint cimport int64_t, uint64_t

from .netlink cimport NetlinkSocket
from .processreader cimport ProcessReader
from .programs cimport Programs

cdef class ProcEvents:
    cdef Programs _programs
    cdef ProcessReader _reader
    cdef NetlinkSocket _socket
    cdef object _thread
    cdef int _wake
    cdef bint _stopping
    cdef readonly int failed             # the errno that ended the thread; 0 while all is well
    cdef int _serve(self) noexcept nogil
    cdef int _take(self) noexcept nogil
    # From any thread while it is open.
    cdef void settle(self) noexcept nogil
