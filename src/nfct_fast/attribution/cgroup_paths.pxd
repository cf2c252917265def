from libc.stdint cimport uint64_t

from nfct_fast.processes.process cimport process_t
from nfct_fast.sockets.holder_search cimport HolderSearch

cdef struct cgroup_path_t:
    uint64_t id              # id of the cgroup
    process_t *path          # as process_of_cgroup() returned it; NULL: unused

# One caller at a time.
cdef class CgroupPaths:
    cdef HolderSearch holder_search
    cdef cgroup_path_t _paths[1024]

    # Return the path of a cgroup as a process_t from process_of_cgroup(), borrowed until the next call. NULL: the
    # cgroup is gone and its path is not cached.
    cdef const process_t *get(self, uint64_t id) noexcept nogil
