"""Read from /proc what the kernel's process events do not report: processes that were running before, and titles.

A thread does this, so that no flow waits for it. It reads all processes once, and again after events were lost. Of the
programs that make flows it checks every few seconds whether they have written a title over their arguments, as sshd,
nginx and postgres do. The thread also makes room for more notes, which takes about 50 ms.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t

from nfct_fast.sockets.socket_notes cimport SocketNotes, owners_lost
from nfct_fast.processes.process cimport process_drop, process_t
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.processes.history cimport History

import select
import threading

cdef enum:
    TITLES_PER_ROUND = 64        # processes whose title is checked in one round

_ROUND = 1000                                       # ms between two rounds
cdef int64_t TITLE_INTERVAL_NS = 5_000_000_000      # between two checks of one program's title
cdef int64_t ACTIVE_NS = 10_000_000_000             # a program without flows for that long is not checked


@cython.final
@cython.auto_pickle(False)
cdef class ProcessWatch:
    """A thread that adds to `history` what events do not report, from start() to close().

    Args:
        history: The History to keep up to date.
        notes: The notes, whose room the thread also enlarges on request.
        reader: The reader of processes.
        opener: The Opener that makes the larger maps; None: the thread makes them itself.
    """

    def __init__(self, History history not None, SocketNotes notes not None, ProcessReader reader not None,
                 Opener opener=None):
        self._history, self._notes, self._reader, self._opener = history, notes, reader, opener
        self._stop = threading.Event()
        self._wake = Wakeup()
        self.scan()

    def scan(self):
        """Read every process, which takes 60 us each. Raise OSError if /proc cannot be listed."""
        cdef process_t *process
        cdef int32_t pid
        self._lost = owners_lost(self._notes)
        for pid in self._reader.pids():
            with nogil:
                process = self._reader.read(pid)
                if process != NULL and process.pid == pid:
                    self._history.add(process, self._lost)
                process_drop(process)

    def check_titles(self):
        """Check the titles that are due."""
        cdef int32_t pids[TITLES_PER_ROUND]
        cdef process_t *process
        cdef int64_t now = monotonic_ns()
        cdef int i, count
        with nogil:
            count = self._history.titles_due(now - ACTIVE_NS, now - TITLE_INTERVAL_NS, pids, TITLES_PER_ROUND)
            for i in range(count):
                process = self._reader.read(pids[i])
                if process != NULL:
                    self._history.check_title(process)
                process_drop(process)

    def start(self, drop_rights=None):
        """Run in a daemon thread until close(). The thread calls drop_rights() first, if given."""
        ready = threading.Event()
        failed = []
        self._thread = threading.Thread(target=self._run, name="nfct_fast processes", daemon=True,
                                        args=(drop_rights, ready, failed))
        self._thread.start()
        ready.wait()
        if failed:
            raise failed[0]

    def _run(self, drop_rights, ready, failed):
        try:
            if drop_rights is not None:
                drop_rights()
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
                if owners_lost(self._notes) != self._lost:
                    self.scan()
                self.check_titles()
            except OSError:
                continue     # out of descriptors: what is known remains valid, and the next round tries again

    cdef void request_growth(self) noexcept nogil:
        """Have the thread make room for more notes soon."""
        self._wake.notify()

    def _larger_map(self, int outer, unsigned int kind, uint32_t entries):
        cdef int fd
        with nogil:
            fd = self._opener.larger_map(outer, kind, entries)
        return fd

    def _grow(self):
        try:
            self._notes.grow(None if self._opener is None else self._larger_map)
        except (OSError, ValueError):
            pass     # the notes keep the room they have: they reach back less far

    def close(self):
        """End the thread; closing twice is harmless."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._wake.close()

    def abandon(self):
        """Close the descriptor in a forked child."""
        self._wake.close()
