"""Fork, exec and exit as they happen."""
from libc.stdint cimport int64_t, uint64_t

from .execreaders cimport ExecReaders
from .netlink cimport NetlinkSocket
from .processcache cimport ProcessCache
from .readings cimport Readings

cdef class ProcEvents:
    cdef NetlinkSocket _socket
    cdef ProcessCache _cache
    cdef Readings _readings
    cdef ExecReaders _readers     # None where they are not permitted
    cdef object _thread
    cdef int _wake                # eventfd
    cdef bint _stopping
    cdef int _failed              # errno that ended the thread
    cdef bint _losing
    cdef readonly bint realtime
    cdef readonly uint64_t forks, execs, exits, unread

    # Takes in what is there, without blocking: how many messages, or -errno. One thread at a time: the object's own
    # if it was started.
    cdef int drain(self, ProcessCache cache) noexcept nogil
    cdef int _drain(self, ProcessCache cache) noexcept nogil
    # From any thread, while open: if nothing is queued, all that has happened until now counts as told. Costs 1 us, where
    # to look at one process costs 10, and 70 if the caches are cold.
    cpdef void glance(self) noexcept nogil
