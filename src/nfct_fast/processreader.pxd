from libc.stdint cimport int32_t, uint32_t

from .cgroupfs cimport CgroupFs
from .cmdlines cimport CommandLines
from .process cimport process_t

# Any thread may use it.
cdef class ProcessReader:
    cdef int _root
    cdef uint32_t _cmdline_limit
    cdef readonly CommandLines lines
    cdef readonly CgroupFs cgroups
    cdef readonly object proc

    # See process_read: a new reference, or NULL.
    cdef process_t *read(self, int32_t pid) noexcept nogil
