"""Path and processes of a cgroup by its id, from the cgroup2 file system."""
from libc.stdint cimport int32_t, uint64_t

cdef class CgroupFilesystem:
    cdef int _mount      # descriptor of the cgroup2 mount point; or -errno
    cdef int _systemd    # the same for the v1 hierarchy name=systemd

    cdef ssize_t _path(self, uint64_t id, char *out, size_t size) noexcept nogil

    # The path below the mount, "/" for its root, terminated: its length, or -errno (ESTALE: the cgroup is gone).
    # *trusted: see trusted() for the path.
    cdef ssize_t path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil
    # Up to `limit` of its processes, without those in cgroups below it: their number, or -errno.
    cdef int pids(self, uint64_t id, int32_t *out, int limit) noexcept nogil
    # Bytes of a path below the mount (of the v1 hierarchy if `systemd`) that name levels which the host's root made.
    # Takes a few stat(2).
    cdef size_t trusted(self, const char *path, size_t size, bint systemd) noexcept nogil
    cdef void _close(self) noexcept nogil
