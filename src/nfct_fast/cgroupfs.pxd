"""A cgroup id -> its path and its processes, asked of the cgroup2 file system."""
from libc.stdint cimport int32_t, uint64_t

cdef class CgroupFs:
    cdef int _mount    # the mount point, open; or -errno

    # The path below the mount, "/" for its root, terminated: its length, or -errno (ESTALE: the cgroup is gone).
    cdef ssize_t path(self, uint64_t id, char *out, size_t size) noexcept nogil
    # Up to `limit` of its processes: how many are in `out`, or -errno. Those in cgroups below it are not counted.
    cdef int pids(self, uint64_t id, int32_t *out, int limit) noexcept nogil
