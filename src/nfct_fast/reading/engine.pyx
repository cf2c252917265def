"""What works for a Conntrack, and does not hold it: its threads, with all that they read from, and whoever takes from them.

However a Conntrack goes, by close(), forgotten, or because it could not be made, close() is what ends this. In a process
that has it by fork that closes the descriptors, and no more: nothing of what is shared with its owner is touched, and what
the owner's threads were in the middle of is never looked at again.
"""
cimport cython
from cpython.ref cimport Py_INCREF
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport close as c_close
from sys_epoll cimport EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_write
from nfct_fast.events.flow cimport EVENT_LOST
from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.output.writer cimport writer_error

import os
from _thread import allocate_lock, get_ident, start_new_thread

from nfct_fast.events.receive_memory import ReceiveMemory, Share
from nfct_fast.namespaces.opener import Opener
from nfct_fast.monitoring.follow import Follower
from nfct_fast.events.open_sources import Listener, descriptors, open_one
from nfct_fast.monitoring.notices import Notices
from nfct_fast.events.tracking import Tracking

_RING = 32768

cdef enum:
    READY = 8
    TURN_MS = 100        # what passes to a Writer before Python is asked again: that costs 80 us where the caches are cold


cdef object _error(str what):
    cdef int number = errno
    return OSError(number, f"{what}: {os.strerror(number)}")


@cython.final
@cython.auto_pickle(False)
cdef class Engine:
    """Made empty, opened once, closed once. One thread at a time may take."""

    def __cinit__(self):
        self.epoll = self.wake = -1
        self.fork_guard = ForkGuard()
        self.lock = allocate_lock()

    def open(self, wanted, rights, bint track, attribution, spec, probe, int64_t rcvbuf, int64_t memory,
             **listener) -> tuple[str, ...]:
        """Open all, and begin to read; why events may never come. attribution, listener: arguments of Attribution and
        Listener. spec: the namespaces to be heard. rcvbuf, memory: bytes of receive buffers, at first and for all together.
        rights: None, or a Rights; settle() is called in each thread before it begins."""
        settled, spawn_helper = (None, None) if rights is None else (rights.settle, rights.spawn_helper)
        self.ring = Ring(_RING)
        self.batch = Batch(self.ring, self.fork_guard)
        self.attribution = Resolver.__new__(Resolver)     # so that it is closed also if only half of it is made
        self.attribution.__init__(**attribution, settled=settled, spawn_helper=spawn_helper)
        self.news = Notices()
        if track:
            self.tracking = Tracking(self.news)
        everywhere = spec == "all"
        self.reader = Reader(self.ring, self.attribution, wanted, self.tracking.check if track and not everywhere else None)
        with descriptors():
            opener = (<object>self.attribution).opener
            if opener is None:
                opener = self.opener = Opener(spawn_helper=spawn_helper if everywhere else None)
            listens = Listener(self.reader, opener, self.tracking, spawn_helper is None, wanted, **listener)
            if everywhere:
                self.follower = Follower(listens, rcvbuf, memory, self.news)
                silence = self.follower.begin(probe)
            else:
                silence = open_one(listens, spec, Share(ReceiveMemory(memory), memory), rcvbuf, probe)
        if track:
            self.tracking.begin()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise _error("epoll")
        self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake < 0:
            raise _error("eventfd")
        self.watch(self.ring.filled, EPOLLIN)
        self.watch(self.wake, EPOLLIN)
        # Not threading.Thread: a ^C within its start() or join() can leave its locks held, or the thread taken for ended.
        self.thread = start_new_thread(self.reader.run, (settled,))
        if everywhere:
            self.follower.start(settled)
        return silence

    cdef int check(self) except -1:
        self.fork_guard.check("this Conntrack")
        if self.closed:
            raise ValueError("operation on closed Conntrack")
        return 0

    cdef int watch(self, int fd, uint32_t events) except -1:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = events
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise _error("epoll")
        return 0

    def stop(self) -> None:
        """Have reading end."""
        self.fork_guard.check("this Conntrack")
        if self.thread is not None:
            self.reader.stop()

    def close(self) -> None:
        """End the threads and close everything, but for what a taker in another thread still uses: that closes it then.

        Cut short by a signal, it goes on when it is called again."""
        if not self.fork_guard.here():
            self._abandon()
            return
        # Forgotten, it may be found by a garbage collection of its own thread.
        if get_ident() in (self.thread, self.follower.thread if self.follower is not None else None):
            start_new_thread(self.close, ())
            return
        self.closed = True
        if self.follower is not None:
            self.follower.stop()
        if self.thread is not None:
            self.reader.stop(True)
            self.reader.finished.acquire()
            self.reader.finished.release()      # no signal's handler runs between the two
        if self.wake >= 0:
            eventfd_write(self.wake, 1)
        with self.lock:
            self.ended = True
            if not self.taking and not self.released:
                self._release()

    def _release(self):
        if self.batch is not None:
            self._tally()
        if self.follower is not None:
            self.follower.close()
        if self.attribution is not None:
            self.attribution.close()
        self._close_descriptors()
        self.released = True

    def _close_descriptors(self):
        if self.opener is not None:
            self.opener.close()
        if self.reader is not None:
            self.reader.close()
        elif self.ring is not None:
            self.ring.close()
        if self.tracking is not None:
            self.tracking.close()
        if self.news is not None:
            self.news.close()
        if self.epoll >= 0:
            c_close(self.epoll)
        if self.wake >= 0:
            c_close(self.wake)
        self.epoll = self.wake = -1

    def _abandon(self):
        if self.released:
            return
        self.released = True
        Py_INCREF(self)      # what the threads of the other process had in hand is in no state to be freed
        if self.follower is not None:
            self.follower.close()
        if self.attribution is not None:
            self.attribution.abandon()
        self._close_descriptors()

    cdef void _tally(self) noexcept nogil:
        # Its thread is gone: what is left is all there will be.
        cdef int i
        if self.reader is not None and not self.tallied:
            self.untaken += self.reader.intake.unread
            self.unsaid += self.reader.intake.unsaid
            self.inexact = self.reader.intake.rushed
        self.tallied = True
        while True:
            for i in range(self.batch.taken, self.batch.count):
                if self.batch.records[i].flow.type == EVENT_LOST:
                    self.unsaid += self.batch.records[i].flow.packets[0]
                    self.inexact = self.inexact or self.batch.records[i].flow.packets[1] != 0
                else:
                    self.untaken += 1
            if self.batch.fill() <= 0:
                return

    cdef int _fill(self, int timeout) noexcept nogil:
        """Take the records there are: their number, -1 for none ever. If there are none, 0 after up to timeout ms."""
        cdef epoll_event ready[READY]
        cdef int count = self.batch.fill()
        if count != 0 or timeout == 0 or self.closed:
            return count
        if epoll_wait(self.epoll, ready, READY, timeout) < 0 and errno != EINTR:
            return -2
        return 0

    cdef int _pass(self, Writer writer, int *result) noexcept nogil:
        """Write what there is and what comes within TURN_MS, as _fill(-1) if nothing is there: how many records were
        written, or as _fill. *result: 0 or what writing failed with."""
        cdef int64_t until = monotonic_ns() + TURN_MS * <int64_t>1000000
        cdef int64_t left = -1
        cdef int written = 0
        cdef int count
        if writer.is_pending():
            result[0] = writer.go_on(self.batch)
            if result[0] < 0:
                return 0
        count = self._fill(-1) or self.batch.fill()
        while count > 0:
            result[0] = writer.put(self.batch)
            written += count
            left = (until - monotonic_ns()) // 1000000
            if result[0] < 0 or left <= 0:
                break
            count = self._fill(<int>left) or self.batch.fill()
        return written or count

    cdef int turn(self, int timeout, Writer writer=None) except -2:
        """_fill, or if there is a writer _pass, as the one taker; -1 also once it is closed."""
        cdef int result = 0
        cdef int count
        cdef int number
        with self.lock:
            if self.closed:
                return -1
            if self.taking:
                raise RuntimeError("another thread is taking flows from this Conntrack")
            self.taking = True
        try:
            with nogil:
                count = self._fill(timeout) if writer is None else self._pass(writer, &result)
                number = errno
        finally:
            with self.lock:
                self.taking = False
                if self.closed:
                    count = -1
                # Until then the reading thread works with what would be freed.
                if self.ended and not self.released:
                    self._release()
        if result < 0 and result != -EINTR:
            raise writer_error(result)
        if count == -2:
            raise OSError(number, f"waiting for flows: {os.strerror(number)}")
        return count
