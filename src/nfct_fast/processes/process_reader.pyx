"""Read processes from one /proc mount."""
cimport cython
from libc.stdint cimport int32_t, uint32_t
from posix.unistd cimport close

from nfct_fast.processes.cgroup_filesystem cimport CgroupFilesystem
from nfct_fast.processes.cmdline_reader cimport CommandLineReader
from nfct_fast.processes.process cimport process_read, process_t
from nfct_fast.processes.process_object cimport process_object
from nfct_fast.kernel.procfs cimport procfs_open

import os


@cython.final
@cython.auto_pickle(False)
cdef class ProcessReader:
    """A reader of processes, with what reading them takes: descriptors, command lines and cgroups.

    Args:
        proc: Where procfs is mounted.
        cmdline_limit: Bytes of each command line to keep.
        lines: The reader of command lines; None: a new one.

    Raises:
        OSError: `proc` cannot be opened.
    """

    def __cinit__(self, proc="/proc", uint32_t cmdline_limit=4096, CommandLineReader lines=None):
        cdef bytes path = os.fsencode(proc)
        self._root = -1
        if not 0 < cmdline_limit <= 1 << 20:
            raise ValueError("cmdline_limit must be between 1 and 1048576")
        self._cmdline_limit = cmdline_limit
        self.proc = proc
        self.lines = CommandLineReader() if lines is None else lines
        self.cgroups = CgroupFilesystem()
        self._root = procfs_open(path)
        if self._root < 0:
            raise OSError(-self._root, os.strerror(-self._root), proc)

    def __dealloc__(self):
        if self._root >= 0:
            close(self._root)

    def close(self):
        """Close the descriptors, while nothing is being read. No process is found any more."""
        self.lines.close()
        self.cgroups.close()
        if self._root >= 0:
            close(self._root)
        self._root = -1

    cdef process_t *read(self, int32_t pid) noexcept nogil:
        cdef int error
        return process_read(self._root, pid, self.lines, self.cgroups, self._cmdline_limit, &error)

    def process(self, int32_t pid):
        """Return the living `Process` with this pid, or None."""
        return process_object(self.read(pid))

    def pids(self) -> list:
        """Return all process ids. OSError if /proc cannot be listed."""
        return [int(name) for name in os.listdir(self.proc) if name.isdecimal()]
