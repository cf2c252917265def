"""Find the path and the processes of a cgroup by its id, in the cgroup2 file system."""
from libc.stdint cimport int32_t, uint64_t

cdef class CgroupFilesystem:
    cdef int _mount      # descriptor of the cgroup2 mount point, or -errno
    cdef int _systemd    # descriptor of the mount point of the v1 hierarchy name=systemd, or -errno

    cdef ssize_t _path(self, uint64_t id, char *out, size_t size) noexcept nogil

    # Write the path below the mount ("/" for its root) to `out`, terminated. Return its length, or -errno (-ESTALE: the
    # cgroup is gone). *trusted: what trusted() returns for the path.
    cdef ssize_t path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil
    # Write up to `limit` of the cgroup's processes to `out`, without those in cgroups below it. Return how many, or
    # -errno.
    cdef int pids(self, uint64_t id, int32_t *out, int limit) noexcept nogil
    # Return how many leading bytes of a path below the mount (of the v1 hierarchy if `systemd`) name levels which the
    # host's root made. Takes a few calls of stat(2).
    cdef size_t trusted(self, const char *path, size_t size, bint systemd) noexcept nogil
    cdef void _close(self) noexcept nogil
