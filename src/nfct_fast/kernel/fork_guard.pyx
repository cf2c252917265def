"""Tells the process that made an object from those that have a copy of it by fork.

Such a copy has the same sockets, and neither the threads nor the locks in a state anybody could rely on: what a child
asked for there, its parent would miss.
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
    """True in the process that made it, False in any other; to ask costs one load. pid: of that process.

    A page that the kernel empties at every fork, whoever calls it: a process id may be the same in another pid
    namespace, and handlers of Python's own do not see a fork of a C library. Raises OSError before Linux 4.14.
    """

    def __cinit__(self):
        cdef void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if page == MAP_FAILED:
            raise MemoryError("fork guard")
        self.page = <int *>page
        if madvise(page, PAGE, MADV_WIPEONFORK) < 0:
            raise OSError(errno, f"MADV_WIPEONFORK (Linux 4.14 or later is needed): {os.strerror(errno)}")
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
            raise RuntimeError(f"{what} is of process {self.pid}, and does not survive a fork: make another one here")
        return 0
