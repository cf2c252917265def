"""tuple -> socket by the tables in /proc/net, for where sock_diag is not to be had, and for ping and raw sockets."""
from libc.stdint cimport int64_t, uint64_t

from .flow cimport tuple_t
from .sock cimport sock_t
from .socktable cimport table_t

# One caller at a time.
cdef class ProcNet:
    cdef int _dir
    cdef int64_t _max_age, _min_interval
    cdef table_t _tables[10]
    cdef readonly uint64_t loads

    # `tuple` as the socket sees it: src is the local side. `when`: CLOCK_MONOTONIC ns of the event, 0 for now. 1 found,
    # 0 no such socket, -EAGAIN the table is older than the event and may not be read again yet, or -errno of a table.
    # Blocks for as long as reading a table takes.
    cdef int lookup(self, const tuple_t *tuple, int64_t when, sock_t *out) noexcept nogil
