"""Find the path and the processes of a cgroup by its id, and which levels of a path the host's root made.

sock_diag and BPF report the id. It is the inode number of the cgroup's directory, and all that a file handle of kernfs
consists of, so that one open_by_handle_at(2) finds the directory, however many there are.
"""
cimport cython
from libc.errno cimport EINVAL, ENAMETOOLONG, ENOENT, errno
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove
from nfct_fast.kernel.fstatat cimport fstatat
from posix.fcntl cimport O_DIRECTORY, O_RDONLY, open as c_open, openat
from posix.stat cimport struct_stat
from posix.unistd cimport close, read

from nfct_fast.processes.owners_cgroup cimport owners_cgroup_mount
from procfs_calls cimport AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, FILEID_KERNFS, O_CLOEXEC, file_handle, open_by_handle_at

from nfct_fast.kernel.procfs cimport procfs_decimal, procfs_link, procfs_name

import os

cdef enum:
    LEVELS = 32          # deepest path that is judged; systemd and the container runtimes make at most ten levels
    PATH_SIZE = 4096


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
            if p == end:    # the number may be cut in two
                if 0 < digits < 12:
                    kept = digits
                    memmove(buf, end - digits, digits)
                break
            # 0 is a process of another pid namespace.
            if digits > 0 and 0 < value <= 0x7fffffff:
                out[n] = <int32_t>value
                n += 1
            p += 1
    return n


cdef inline bint roots_own(const struct_stat *st) noexcept nogil:
    return st.st_uid == 0 and not st.st_mode & 0o022


cdef int mount_open(mount) except? -1:
    cdef bytes path
    cdef int fd
    if mount is None:
        return -ENOENT
    path = os.fsencode(mount)
    fd = c_open(<const char *>path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    return fd if fd >= 0 else -errno


@cython.final
@cython.auto_pickle(False)
cdef class CgroupFilesystem:
    """The cgroup2 mount, and the v1 hierarchy of systemd if there is one.

    If cgroup2 is not mounted, this makes a private mount (CAP_SYS_ADMIN). If that fails, every method returns an error;
    the constructor never raises one. Finding a cgroup by id needs CAP_DAC_READ_SEARCH (before Linux 6.11 in the initial
    user namespace).

    Args:
        mount: Where cgroup2 is mounted; None: see find_mount().
    """

    def __cinit__(self, mount=None):
        self._mount = self._systemd = -ENOENT
        self._mount = mount_open(find_mount() if mount is None else mount)
        if self._mount == -ENOENT and mount is None:
            self._mount = owners_cgroup_mount()     # `ip netns exec` hides the host's mount
        self._systemd = mount_open(find_mount(kind=b"cgroup"))

    def __dealloc__(self):
        self._close()

    cdef void _close(self) noexcept nogil:
        if self._mount >= 0:
            close(self._mount)
        if self._systemd >= 0:
            close(self._systemd)
        self._mount = self._systemd = -ENOENT

    def close(self):
        """Close the mounts, while no other method is running."""
        self._close()

    cdef size_t trusted(self, const char *path, size_t size, bint systemd) noexcept nogil:
        # Whoever can write to a directory may have made the levels below it.
        cdef char above[PATH_SIZE]
        cdef struct_stat st
        cdef int mount = self._systemd if systemd else self._mount
        cdef size_t at = 0
        cdef int _
        if mount < 0 or fstatat(mount, b"", &st, AT_EMPTY_PATH) < 0:
            return 0
        for _ in range(LEVELS):
            if not roots_own(&st) or at == size:
                break
            at += 1
            while at < size and path[at] != c'/':
                at += 1
            if at >= PATH_SIZE:
                break
            memcpy(above, path + 1, at - 1)
            above[at - 1] = 0
            if at == 1 or fstatat(mount, above, &st, AT_SYMLINK_NOFOLLOW) < 0:
                break
        return at

    cdef ssize_t path(self, uint64_t id, char *out, size_t size, size_t *trusted) noexcept nogil:
        cdef ssize_t got = self._path(id, out, size)
        trusted[0] = self.trusted(out, got, False) if got > 0 else 0
        return got

    cdef ssize_t _path(self, uint64_t id, char *out, size_t size) noexcept nogil:
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
        if lead == 1:
            lead = 0     # a mount of our own: no path leads to it
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

    def trusted_of(self, path, systemd=False):
        """Return how many leading bytes of a path name levels which the host's root made.

        They end at the first directory that is gone, or that someone else owns or may write to and can therefore make
        and name directories in.

        Args:
            path: A path below the mount, str.
            systemd: It is in the v1 hierarchy.

        Returns:
            The number, int; 0 without a mount.
        """
        cdef bytes raw = os.fsencode(path)
        if not raw.startswith(b"/"):
            raise ValueError(f"cgroup path {path!r} does not begin with /")
        return self.trusted(raw, len(raw), systemd)

    def path_of(self, id):
        """Return the path of a cgroup below the mount, a str. OSError: ESTALE if it is gone, ENOENT without a mount."""
        cdef char buf[4096]
        cdef ssize_t got = self._path(id, buf, sizeof(buf))
        if got < 0:
            raise OSError(-got, os.strerror(-got), f"cgroup {id}")
        return os.fsdecode(buf[:got])

    def pids_of(self, id, limit=1024):
        """Return a list of the pids in a cgroup, at most `limit` (up to 1024). OSError as path_of()."""
        cdef int32_t pids[1024]
        cdef int got = self.pids(id, pids, max(0, min(limit, 1024)))
        if got < 0:
            raise OSError(-got, os.strerror(-got), f"cgroup {id}")
        return [pids[i] for i in range(got)]


def find_mount(mountinfo="/proc/self/mountinfo", kind=b"cgroup2"):
    """Find where the cgroup2 hierarchy is mounted, preferably its root.

    Args:
        mountinfo: The file to read, see proc_pid_mountinfo(5).
        kind: b"cgroup" to find the v1 hierarchy name=systemd, which systemd uses if it does not use cgroup2.

    Returns:
        The mount point, bytes; None if there is none, or `mountinfo` cannot be read.
    """
    found = None
    try:
        with open(mountinfo, "rb") as lines:
            for line in lines:
                before, _, after = line.partition(b" - ")
                fields = before.split(b" ")
                if not after.startswith(kind + b" ") or len(fields) < 5:
                    continue
                if kind == b"cgroup" and b"name=systemd" not in after.rstrip().rpartition(b" ")[2].split(b","):
                    continue
                # The kernel writes space, tab, newline and backslash as three octal digits.
                root, path = [field.decode("unicode_escape").encode("latin-1") for field in fields[3:5]]
                if root == b"/":
                    return path
                found = found or path
    except OSError:
        pass
    return found
