from libc.stdint cimport uint64_t

from nfct_fast.processes.process cimport process_t
from nfct_fast.sockets.holder_search cimport HolderSearch

cdef struct cgroup_path_t:
    uint64_t id
    process_t *path

# One caller at a time.
cdef class CgroupPaths:
    cdef HolderSearch holder_search
    cdef cgroup_path_t _paths[1024]

    # The cgroup with this id as process_of_cgroup has it, borrowed until the next call; NULL: it is gone, and was never asked for.
    cdef const process_t *get(self, uint64_t id) noexcept nogil
