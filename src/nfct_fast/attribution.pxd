from libc.stdint cimport int32_t, int64_t
from .cgroupfs cimport CgroupFs
from .directory cimport Directory
from .flow cimport tuple_t
from .owner cimport owner_t
from .processcache cimport ProcessCache
from .procfd cimport FdScanner
from .procnet cimport ProcNet
from .record cimport record_t
from .sock cimport sock_t

cdef class Attribution:
    cdef readonly str mode
    cdef bint off
    cdef bint diag                 # ask sock_diag; else only the tables in /proc/net
    cdef Directory directory
    cdef ProcNet tables
    cdef FdScanner scanner
    cdef ProcessCache processes
    cdef CgroupFs cgroups
    cdef int64_t heard             # CLOCK_MONOTONIC ns when the batch was received
    cdef void begin(self, int64_t heard) noexcept nogil
    cdef void resolve(self, record_t *record) noexcept nogil
    cdef int _socket(self, const tuple_t *end, sock_t *out) noexcept nogil
    cdef int _listener(self, const tuple_t *end, sock_t *out) noexcept nogil
    cdef int _holders(self, const sock_t *sock, owner_t *out) noexcept nogil
    cdef int _name(self, const tuple_t *end, owner_t *out) noexcept nogil
    cdef void _resolve_forwarded(self, record_t *record) noexcept nogil
