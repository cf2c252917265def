"""Cache the paths of cgroups by id. The kernel never reuses an id, so no entry becomes outdated."""
cimport cython
from libc.stdint cimport uint64_t

from nfct_fast.processes.process cimport process_drop, process_of_cgroup, process_t
from nfct_fast.sockets.holder_search cimport HolderSearch

cdef enum:
    PATHS = 1024
    PATH_SIZE = 4096


@cython.final
@cython.auto_pickle(False)
cdef class CgroupPaths:
    """A cache of the paths of 1,024 cgroups, each read through `holder_search` when it is first needed."""

    def __init__(self, HolderSearch holder_search not None):
        self.holder_search = holder_search

    def __dealloc__(self):
        cdef int i
        for i in range(PATHS):
            process_drop(self._paths[i].path)

    cdef const process_t *get(self, uint64_t id) noexcept nogil:
        cdef char path[PATH_SIZE]
        cdef cgroup_path_t *entry = &self._paths[id & (PATHS - 1)]
        cdef size_t trusted
        cdef ssize_t size
        if entry.id != id or entry.path == NULL:
            size = self.holder_search.cgroup_path(id, path, sizeof(path), &trusted)
            if size < 0:
                return NULL
            process_drop(entry.path)
            entry.path = process_of_cgroup(path, size, trusted)
            entry.id = id
        return entry.path
