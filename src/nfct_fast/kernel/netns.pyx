"""Network namespaces: naming them, listing them, entering one for a moment.

A namespace is known by the inode of its nsfs file, which no other has while it exists.
"""
cimport cython
from libc.errno cimport EACCES, EMFILE, ENFILE, ENOTTY, EPERM, errno
from posix.unistd cimport close

import os
import threading
from pathlib import Path

cdef extern from "<linux/nsfs.h>" nogil:
    unsigned long NS_GET_NSTYPE
    unsigned long NS_GET_USERNS
    unsigned long NS_GET_PARENT
    unsigned long NS_GET_OWNER_UID

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<sys/types.h>" nogil:
    ctypedef unsigned int uid_t

cdef enum:
    INITIAL_USERNS = 0xEFFFFFFD     # PROC_USER_INIT_INO: its inode on every Linux

cdef extern from "<sched.h>" nogil:
    enum: CLONE_NEWNET
    int setns(int fd, int nstype)

# Where "ip netns" and docker bind-mount the namespaces they name.
NAMED = ("/run/netns", "/run/docker/netns")


def current(proc="/proc") -> int:
    """The inode of the calling thread's network namespace. Raises OSError."""
    return os.stat(f"{proc}/thread-self/ns/net").st_ino


def keep_named() -> dict:
    """Handles of the folders that have names, {folder: descriptor}, for a thread that may not get at them later."""
    kept = {}
    for folder in NAMED:
        try:
            kept[folder] = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
    return kept


def named(kept=None) -> dict:
    """The namespaces that have a name, as {name: path}; a name that "ip netns" gave wins over docker's. kept: from
    keep_named(); a folder that can still be got at is looked at anew, as something may have been mounted over it."""
    found = {}
    for folder in NAMED:
        try:
            entries = os.listdir(folder)
        except OSError as error:
            if error.errno != EACCES or not kept or folder not in kept:
                continue
            folder = f"/proc/self/fd/{kept[folder]}"
            try:
                entries = os.listdir(folder)
            except OSError:
                continue
        for name in sorted(entries):
            found.setdefault(name, f"{folder}/{name}")
    return found


def owner(int fd) -> tuple:
    """Who made an open network namespace that is not ours: (uid, inode of his user namespace); (None, 0) for ours.

    Ours are those of the initial user namespace and of the caller's own. What a namespace of theirs made in turn is the
    same owner's: the outermost counts. A uid of -1 is not known, as of what is outside of the caller's user namespace.
    """
    cdef uid_t uid = 0
    cdef int outer, space = ioctl(fd, NS_GET_USERNS)
    ours = INITIAL_USERNS, os.stat("/proc/self/ns/user").st_ino
    inode = 0
    while space >= 0:
        found = os.fstat(space).st_ino
        if found in ours:
            os.close(space)
            return (uid, inode) if inode else (None, 0)
        inode = found
        outer = ioctl(space, NS_GET_PARENT)
        if ioctl(space, NS_GET_OWNER_UID, &uid) < 0 and outer >= 0:
            os.close(outer)
            outer = -1
        os.close(space)
        space = outer
    return -1, inode


def pids(proc="/proc") -> list:
    """Pairs of a pid and the inode of its network namespace; processes that may not be looked at are left out."""
    found = []
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                found.append((int(name), os.stat(f"{proc}/{name}/ns/net").st_ino))
            except OSError:    # gone, or another user's
                continue
    return found


def find_pid(inode, proc="/proc"):
    """A process in the namespace (for the tables in /proc/PID/net), or None. Walks /proc: about 18 us a process."""
    for pid, found in pids(proc):
        if found == inode:
            return pid
    return None


def mounted(kept=None) -> dict:
    """The namespaces that have a name, as {inode: (name, path)}; kept: see named()."""
    found = {}
    for name, path in named(kept).items():
        try:
            status, parent = os.stat(path), os.stat(os.path.dirname(path))
        except OSError:
            continue
        # A name that has no namespace yet, or none any more, is an ordinary file: those have the folder's device.
        if status.st_dev != parent.st_dev:
            found.setdefault(status.st_ino, (name, path))
    return found


def paths(proc="/proc", kept=None) -> dict:
    """Every namespace of this host that can be seen, as {inode: (name, path)}: named ones (see there), then by process.

    A namespace kept alive by nothing but an open file or socket is not found.
    """
    found = mounted(kept)
    for pid, inode in pids(proc):
        found.setdefault(inode, (f"pid:{pid}", f"{proc}/{pid}/ns/net"))
    return found


@cython.final
@cython.auto_pickle(False)
cdef class Netns:
    """An open network namespace. It is kept alive until close().

    inode: its number; name: what it was asked for by; path: where it was opened; fileno(): the open nsfs file.
    """
    cdef readonly str name
    cdef readonly str path
    cdef readonly object inode
    cdef int fd

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def __init__(self, path, name=None):
        path = os.fspath(path)
        self.close()
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.path = path
        self.name = path if name is None else name
        # A name under /run/netns whose mount is gone is an ordinary empty file.
        if ioctl(self.fd, NS_GET_NSTYPE) != CLONE_NEWNET:
            self.close()
            raise OSError(ENOTTY, "not a network namespace", path)
        self.inode = os.fstat(self.fd).st_ino

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __repr__(self):
        return f"<Netns {self.name} {self.inode}>"

    def close(self):
        """Lets go of the namespace; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """The open nsfs file, or -1 when closed."""
        return self.fd

    def entered(self) -> Entered:
        """The calling thread is in this namespace within a `with` block, and back in its own after it.

        For set-up code only; sockets made inside stay inside. Needs CAP_SYS_ADMIN here and over the namespace; not
        for generators or coroutines that yield in the block. Raises OSError; RuntimeError if there is no way back,
        after which the thread must not go on.
        """
        return Entered(self)


@cython.final
@cython.auto_pickle(False)
cdef class Entered:
    """One block of Netns.entered()."""
    cdef Netns netns
    cdef object thread
    cdef int home

    def __cinit__(self, Netns netns not None):
        self.netns = netns
        self.home = -1

    def __dealloc__(self):
        if self.home >= 0:
            close(self.home)

    def __enter__(self):
        if self.netns.fd < 0:
            raise ValueError("the namespace is closed")
        self.thread = threading.get_ident()
        if current() == self.netns.inode:      # which needs no privilege
            return self.netns
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self.netns.fd, self.netns.name)
        except BaseException:
            os.close(self.home)
            self.home = -1
            raise
        return self.netns

    def __exit__(self, *exc):
        if self.home < 0:
            return
        try:
            if threading.get_ident() != self.thread:
                raise RuntimeError(f"left network namespace {self.netns.name} in another thread than entered it")
            try:
                enter(self.home, "of before")
            except OSError as error:
                raise RuntimeError(f"cannot leave network namespace {self.netns.name}: {error}") from error
        finally:
            os.close(self.home)
            self.home = -1


def enter(int fd, name):
    """Moves the calling thread into the namespace for good. Raises OSError."""
    if setns(fd, CLONE_NEWNET) < 0:
        code = errno
        why = "entering needs CAP_SYS_ADMIN" if code == EPERM else os.strerror(code)
        raise OSError(code, f"network namespace {name}: {why}")


def resolve(spec, proc="/proc") -> list:
    """The namespaces meant by a name ("ip netns" or docker), a process id, a path, or "all", as a list of Netns.

    A name wins over a process id. Raises FileNotFoundError with the names there are, ProcessLookupError,
    PermissionError or another OSError; with "all", namespaces that vanish meanwhile are left out.
    """
    spec = os.fspath(spec) if isinstance(spec, Path) else str(spec)
    if spec == "all":
        found = []
        for inode, (name, path) in sorted(paths(proc).items()):
            try:
                found.append(Netns(path, name))
            except OSError as error:
                if error.errno in (EMFILE, ENFILE):
                    raise
        return found
    names = named()
    if "/" in spec:
        return [Netns(spec)]
    if spec in names:
        return [Netns(names[spec], spec)]
    if spec.isdecimal():
        try:
            return [Netns(f"{proc}/{spec}/ns/net", f"pid:{spec}")]
        except FileNotFoundError:
            raise ProcessLookupError(f"no process {spec}, and no network namespace of that name") from None
        except PermissionError as error:
            raise PermissionError(error.errno, f"network namespace of process {spec}: needs CAP_SYS_PTRACE") from None
    there = ", ".join(sorted(names)) or "none"
    raise FileNotFoundError(f"no network namespace {spec!r}; named ones: {there}")
