"""A cgroup id -> its path and its processes, asked of the cgroup2 file system."""
from libc.stdint cimport int32_t, uint64_t

cdef class CgroupFilesystem:
    cdef int _mount      # the mount point, open; or -errno
    cdef int _systemd    # of the v1 hierarchy name=systemd

    cdef ssize_t _path(self, uint64_t id, char *out, size_t size) noexcept nogil

    # The path below the mount, "/" for its root, terminated: its length, or -errno (ESTALE: the cgroup is gone); in *trusted
    # how much of it counts, see below.
    cdef ssize_t path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil
    # Up to `limit` of its processes: how many are in `out`, or -errno. Those in cgroups below it are not counted.
    cdef int pids(self, uint64_t id, int32_t *out, int limit) noexcept nogil
    # How much of a path ("/..." of the v1 hierarchy if `systemd`) names levels that the host's root made: a few stat(2).
    cdef size_t trusted(self, const char *path, size_t size, bint systemd) noexcept nogil
    cdef void _close(self) noexcept nogil
