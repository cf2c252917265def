"""Distinguish the process that made an object from a forked child, which has a copy of it.

The copy must not be used: it shares the parent's sockets, and the parent would miss what the child received; it has
none of the threads; and its locks may be in any state.
"""
cimport cython
from libc.errno cimport errno
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap, munmap
from posix.unistd cimport getpid

import os

cdef enum:
    MADV_WIPEONFORK = 18     # since 4.14; asm-generic/mman-common.h
    PAGE = 4096              # or what the kernel rounds it up to


@cython.final
@cython.auto_pickle(False)
cdef class ForkGuard:
    """A flag that is true in the process that made it and false in a forked child. Testing it costs one load.

    The flag is on a page that the kernel zeroes in the child of every fork, whoever calls it. Comparing process ids
    would not do, as a child in another pid namespace can have the same one; nor would os.register_at_fork(), which
    misses the forks of C libraries.

    Raises:
        OSError: Linux is older than 4.14.
    """

    def __cinit__(self):
        cdef void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if page == MAP_FAILED:
            raise MemoryError("fork guard")
        self.page = <int *>page
        if madvise(page, PAGE, MADV_WIPEONFORK) < 0:
            raise OSError(errno, f"madvise(MADV_WIPEONFORK): {os.strerror(errno)} (needs Linux 4.14)")
        self.page[0] = 1
        self.pid = getpid()

    def __dealloc__(self):
        if self.page != NULL:
            munmap(self.page, PAGE)

    def __bool__(self):
        return self.here()

    cdef bint here(self) noexcept nogil:
        return self.page[0] != 0

    cdef int check(self, str what) except -1:
        if not self.here():
            raise RuntimeError(f"{what} belongs to process {self.pid} and does not survive a fork: make one here")
        return 0
