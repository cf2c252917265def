from libc.stdint cimport int32_t, uint32_t

from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.processes.cmdline_reader cimport CommandLineReader
from nfct_fast.processes.process cimport process_t

# Any thread may use it.
cdef class ProcessReader:
    cdef int _root
    cdef uint32_t _cmdline_limit
    cdef readonly CommandLineReader lines
    cdef readonly CgroupFilesystem cgroups
    cdef readonly object proc

    # Return a new reference, or NULL; see process_read().
    cdef process_t *read(self, int32_t pid) noexcept nogil
