"""A cgroup id -> its path and its processes, asked of the cgroup2 file system.

The id is what sock_diag and BPF report: the inode number of the cgroup's directory, which is also the whole file
handle (kernfs), so that one open_by_handle_at(2) finds it among any number.
"""
cimport cython
from libc.errno cimport EINVAL, ENAMETOOLONG, ENOENT, errno
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove
from posix.fcntl cimport O_DIRECTORY, O_RDONLY, open as c_open, openat
from posix.unistd cimport close, read

from procfs_calls cimport FILEID_KERNFS, O_CLOEXEC, file_handle, open_by_handle_at

from .procfs cimport procfs_decimal, procfs_link, procfs_name

import os


cdef int cgroup_open(int mount, uint64_t id) noexcept nogil:
    cdef uint64_t space[2]    # the header of 8 bytes and a handle of 8
    cdef file_handle *handle = <file_handle *>space
    cdef int fd
    handle.handle_bytes = 8
    handle.handle_type = FILEID_KERNFS
    memcpy(handle.f_handle, &id, 8)
    fd = open_by_handle_at(mount, handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    return fd if fd >= 0 else -errno


cdef ssize_t fd_path(int fd, char *out, size_t size) noexcept nogil:
    cdef char name[64]
    cdef char link[80]
    memcpy(link, b"/proc/self/fd/", 14)
    procfs_name(name, fd, b"")
    memcpy(link + 14, name, 16)
    return procfs_link(-1, link, out, size)


cdef int pids_parse(int fd, int32_t *out, int limit) noexcept nogil:
    cdef char buf[4096]
    cdef const char *p
    cdef const char *end
    cdef uint64_t value
    cdef size_t kept = 0
    cdef ssize_t got
    cdef int n = 0, digits
    while n < limit:
        got = read(fd, buf + kept, sizeof(buf) - kept)
        if got < 0:
            return -errno
        if got == 0:
            break
        p = buf
        end = buf + kept + got
        kept = 0
        while p < end and n < limit:
            digits = procfs_decimal(&p, end, &value)
            if p == end:    # perhaps cut in two
                if 0 < digits < 12:
                    kept = digits
                    memmove(buf, end - digits, digits)
                break
            # 0 stands for a process of another pid namespace.
            if digits > 0 and 0 < value <= 0x7fffffff:
                out[n] = <int32_t>value
                n += 1
            p += 1
    return n


@cython.final
@cython.auto_pickle(False)
cdef class CgroupFs:
    """The cgroup2 mount, `mount` or the one find_mount() finds.

    Opening never fails: without a cgroup2 mount every question is answered with ENOENT. open_by_handle_at(2) needs
    CAP_DAC_READ_SEARCH (in the initial user namespace before Linux 6.11).
    """

    def __cinit__(self, mount=None):
        cdef bytes path
        self._mount = -ENOENT
        if mount is None:
            mount = find_mount()
        if mount is not None:
            path = os.fsencode(mount)
            self._mount = c_open(<const char *>path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if self._mount < 0:
                self._mount = -errno

    def __dealloc__(self):
        if self._mount >= 0:
            close(self._mount)

    cdef ssize_t path(self, uint64_t id, char *out, size_t size) noexcept nogil:
        cdef char mount[4096]
        cdef ssize_t lead, got
        cdef int fd
        if self._mount < 0:
            return self._mount
        fd = cgroup_open(self._mount, id)
        if fd < 0:
            return fd
        got = fd_path(fd, out, size)
        close(fd)
        if got < 0:
            return got
        lead = fd_path(self._mount, mount, sizeof(mount))
        if lead < 0:
            return lead
        if got < lead or memcmp(out, mount, lead) != 0:
            return -EINVAL
        if got == lead:
            if size < 2:
                return -ENAMETOOLONG
            out[0] = c'/'
            got = lead + 1
        else:
            memmove(out, out + lead, got - lead)
        out[got - lead] = 0
        return got - lead

    cdef int pids(self, uint64_t id, int32_t *out, int limit) noexcept nogil:
        cdef int fd, procs, n
        if self._mount < 0:
            return self._mount
        fd = cgroup_open(self._mount, id)
        if fd < 0:
            return fd
        procs = openat(fd, b"cgroup.procs", O_RDONLY | O_CLOEXEC)
        n = -errno if procs < 0 else 0
        close(fd)
        if procs < 0:
            return n
        n = pids_parse(procs, out, limit)
        close(procs)
        return n

    def path_of(self, id):
        """The path of a cgroup id below the mount, as str; OSError(ESTALE) if it is gone, ENOENT without a mount."""
        cdef char buf[4096]
        cdef ssize_t got = self.path(id, buf, sizeof(buf))
        if got < 0:
            raise OSError(-got, os.strerror(-got), f"cgroup {id}")
        return os.fsdecode(buf[:got])

    def pids_of(self, id, limit=1024):
        """At most `limit` (up to 1024) pids of the processes in a cgroup id, as a list; OSError as `path_of`."""
        cdef int32_t pids[1024]
        cdef int got = self.pids(id, pids, max(0, min(limit, 1024)))
        if got < 0:
            raise OSError(-got, os.strerror(-got), f"cgroup {id}")
        return [pids[i] for i in range(got)]


def find_mount(mountinfo="/proc/self/mountinfo"):
    """Where the cgroup2 hierarchy is mounted, its root rather than a part, as bytes; None: nowhere, or it cannot be read."""
    found = None
    try:
        with open(mountinfo, "rb") as lines:
            for line in lines:
                before, _, after = line.partition(b" - ")
                fields = before.split(b" ")
                if not after.startswith(b"cgroup2 ") or len(fields) < 5:
                    continue
                # proc(5) writes space, tab, newline and backslash as three octal digits.
                root, path = [field.decode("unicode_escape").encode("latin-1") for field in fields[3:5]]
                if root == b"/":
                    return path
                found = found or path
    except OSError:
        pass
    return found
