"""An open network namespace: who owns it, and how a thread enters it for a moment. netns.py finds namespaces."""
cimport cython
from libc.errno cimport ENOTTY, EPERM, errno
from posix.unistd cimport close

import os
import threading

from nfct_fast.kernel.initial_namespaces import INITIAL

cdef extern from "<linux/nsfs.h>" nogil:
    unsigned long NS_GET_NSTYPE
    unsigned long NS_GET_USERNS
    unsigned long NS_GET_PARENT
    unsigned long NS_GET_OWNER_UID

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<sys/types.h>" nogil:
    ctypedef unsigned int uid_t

cdef extern from "<sched.h>" nogil:
    enum: CLONE_NEWNET
    int setns(int fd, int nstype)


OWN = "/proc/thread-self/ns/net"


def owner(int fd) -> tuple:
    """Return the owner of an open network namespace: (uid, inode of the user namespace), or (None, 0) if it is ours.

    A namespace is ours if it belongs to the initial user namespace or to the caller's own. Otherwise the outermost of
    nested user namespaces decides, so that nesting does not turn one owner into several. The uid is -1 if it is not
    known, as outside of the caller's user namespace.
    """
    cdef uid_t uid = 0
    cdef int outer, space = ioctl(fd, NS_GET_USERNS)
    ours = INITIAL["user"], os.stat("/proc/self/ns/user").st_ino
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


@cython.final
@cython.auto_pickle(False)
cdef class Netns:
    """An open network namespace, which stays alive until close().

    Attributes:
        inode: Inode number of its nsfs file.
        name: The name that the caller gave it; the path if none was given.
        path: The path by which it was opened.
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
        """Close the namespace; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """The descriptor of the nsfs file, or -1 when closed."""
        return self.fd

    def entered(self) -> Entered:
        """Return a context manager that moves the calling thread into this namespace and back.

        For set-up code only. Sockets made inside stay in the namespace. Needs CAP_SYS_ADMIN in the present namespace
        and in this one. Do not yield inside the block, as generators and coroutines do.

        Raises:
            RuntimeError: The thread cannot return to its own namespace, and must not continue.
            OSError: The namespace cannot be entered.
        """
        return Entered(self)


@cython.final
@cython.auto_pickle(False)
cdef class Entered:
    """One block of Netns.entered()."""
    cdef Netns netns
    cdef object thread
    cdef int own             # descriptor of the thread's own namespace, to return to; -1: none was left

    def __cinit__(self, Netns netns not None):
        self.netns = netns
        self.own = -1

    def __dealloc__(self):
        if self.own >= 0:
            close(self.own)

    def __enter__(self):
        if self.netns.fd < 0:
            raise ValueError("the namespace is closed")
        self.thread = threading.get_ident()
        if os.stat(OWN).st_ino == self.netns.inode:      # nothing to enter, so no privilege is needed
            return self.netns
        self.own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self.netns.fd, self.netns.name)
        except BaseException:
            os.close(self.own)
            self.own = -1
            raise
        return self.netns

    def __exit__(self, *exc):
        if self.own < 0:
            return
        try:
            if threading.get_ident() != self.thread:
                raise RuntimeError(f"network namespace {self.netns.name} was entered by another thread")
            try:
                enter(self.own, "of before")
            except OSError as error:
                raise RuntimeError(f"cannot leave network namespace {self.netns.name}: {error}") from error
        finally:
            os.close(self.own)
            self.own = -1


cdef int netns_enter(int fd) noexcept nogil:
    return -errno if setns(fd, CLONE_NEWNET) < 0 else 0


def enter(int fd, name):
    """Move the calling thread into the namespace for good. OSError."""
    cdef int result = netns_enter(fd)
    if result < 0:
        why = "entering needs CAP_SYS_ADMIN" if result == -EPERM else os.strerror(-result)
        raise OSError(-result, f"network namespace {name}: {why}")
