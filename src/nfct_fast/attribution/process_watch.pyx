"""What is known of processes beside the kernel's events: those that were there before, and titles.

Its thread reads /proc where nobody waits for it: all processes once, again after events were lost, and of the programs
that make flows now and then whether they have written a title over their arguments (as sshd, nginx and postgres do). It
also has more room made for the kernel's notes, which takes some 50 ms.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.sockets.socket_notes cimport SocketNotes, owners_lost
from nfct_fast.processes.process cimport process_drop, process_t
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.processes.history cimport History

import select
import threading

cdef enum:
    LOOKS = 64               # at titles, in one round

_ROUND = 1000                                   # ms
cdef int64_t TITLE_NS = 5_000_000_000           # between two looks at one program's title
cdef int64_t NAMED_NS = 10_000_000_000          # programs named longer ago are not looked at


@cython.final
@cython.auto_pickle(False)
cdef class ProcessWatch:
    """Reads all processes into `programs`, and goes on in a thread from start() to close().

    opener: who makes larger maps for `owners`; None: the thread does."""

    def __init__(self, History programs not None, SocketNotes owners not None, ProcessReader reader not None,
                 Opener opener=None):
        self._programs, self._owners, self._reader, self._opener = programs, owners, reader, opener
        self._stop = threading.Event()
        self._wake = Wakeup()
        self.scan()

    def scan(self):
        """Read every process there is: 60 us each. OSError if /proc cannot be listed."""
        cdef process_t *process
        cdef int32_t pid
        self._lost = owners_lost(self._owners)
        for pid in self._reader.pids():
            with nogil:
                process = self._reader.read(pid)
                if process != NULL and process.pid == pid:
                    self._programs.add(process, self._lost)
                process_drop(process)

    def look(self):
        """Look at the titles that are due."""
        cdef int32_t pids[LOOKS]
        cdef process_t *process
        cdef int64_t now = monotonic_ns()
        cdef int i, count
        with nogil:
            count = self._programs.titles_due(now - NAMED_NS, now - TITLE_NS, pids, LOOKS)
            for i in range(count):
                process = self._reader.read(pids[i])
                if process != NULL:
                    self._programs.check_title(process)
                process_drop(process)

    def start(self, settled=None):
        """Go on in a daemon thread, until close(). settled: called in it before it begins, to give up privileges."""
        ready = threading.Event()
        failed = []
        self._thread = threading.Thread(target=self._run, name="nfct_fast processes", daemon=True,
                                        args=(settled, ready, failed))
        self._thread.start()
        ready.wait()
        if failed:
            raise failed[0]

    def _run(self, settled, ready, failed):
        try:
            if settled is not None:
                settled()
        except OSError as error:
            failed.append(error)
            return
        finally:
            ready.set()
        poll = select.poll()
        poll.register(self._wake.fd, select.POLLIN)
        while True:
            asked = poll.poll(_ROUND)
            if self._stop.is_set():
                return
            if asked:
                self._wake.clear()
                self._grow()
                continue
            try:
                if owners_lost(self._owners) != self._lost:
                    self.scan()
                self.look()
            except OSError:
                continue     # out of descriptors: what is known stays known, and the next round comes

    cdef void ask(self) noexcept nogil:
        """Have more room made for notes, soon."""
        self._wake.notify()

    def _larger_map(self, int outer, unsigned int kind, uint32_t entries):
        cdef int fd
        with nogil:
            fd = self._opener.larger_map(outer, kind, entries)
        return fd

    def _grow(self):
        try:
            self._owners.grow(None if self._opener is None else self._larger_map)
        except (OSError, ValueError) as error:
            self.small = str(error)

    def close(self):
        """End the thread; closing twice is harmless."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._wake.close()

    def abandon(self):
        """In a process that has it by fork: close the descriptor."""
        self._wake.close()
