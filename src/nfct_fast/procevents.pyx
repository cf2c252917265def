"""Fork, exec and exit as they happen, from the kernel's proc connector, told to the cache of process facts.

A program may be gone a millisecond after it was executed, so its own thread waits for the events and reads /proc at
once, without the GIL. Lost messages are noticed: what was known then counts up to the last event, and no longer.
"""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from posix.unistd cimport close as c_close

from linux_cn_proc cimport (PROC_EVENT_COMM, PROC_EVENT_EXEC, PROC_EVENT_EXIT, PROC_EVENT_FORK, PROC_EVENT_GID, PROC_EVENT_UID,
                            proc_event)
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, eventfd_read, eventfd_write, poll, pollfd

from .execreaders cimport ExecReaders
from .processcache cimport ProcessCache, cache_lock, cache_unlock
from .processhistory cimport (ALTERED_COMM, ALTERED_GID, ALTERED_UID, history_altered, history_begun, history_executed,
                              history_exited, history_forked, history_lapsed, history_reached, history_silent,
                              history_telling)
from .procconnector cimport connector_close, connector_event, connector_open
from .procfs cimport procfs_monotonic_ns
from .readings cimport Readings

import os
import threading

cdef enum:
    SLOTS = 128
    ROUNDS = 32              # of SLOTS messages, until it is looked whether to stop


cdef void event_tell(ProcEvents self, ProcessCache cache, const proc_event *event) noexcept nogil:
    cdef int64_t when = <int64_t>event.timestamp_ns
    cdef int32_t pid = event.event_data.exit.process_pid
    cdef bint thread = pid != event.event_data.exit.process_tgid
    cdef uint32_t what = event.what
    if when <= 0:
        return
    if what == PROC_EVENT_FORK:
        pid = event.event_data.fork.child_pid
        if pid != event.event_data.fork.child_tgid or pid <= 0 or event.event_data.fork.parent_tgid < 0:
            return
        self.forks += 1
        history_forked(cache, event.event_data.fork.parent_tgid, pid, when)
    elif thread or pid <= 0:
        return
    elif what == PROC_EVENT_EXEC:
        self.execs += 1
        self.unread += not history_executed(cache, self._readings, pid, when)
    elif what == PROC_EVENT_EXIT:
        self.exits += 1
        history_exited(cache, pid, when)
    elif what == PROC_EVENT_UID:
        history_altered(cache, pid, when, ALTERED_UID, event.event_data.id.r.ruid, NULL)
    elif what == PROC_EVENT_GID:
        history_altered(cache, pid, when, ALTERED_GID, event.event_data.id.r.rgid, NULL)
    elif what == PROC_EVENT_COMM:
        history_altered(cache, pid, when, ALTERED_COMM, 0, event.event_data.comm.comm)
    # An image that ran at `when` had its own event queued before: that one has been taken in.
    history_reached(cache, when)


cdef int serve(ProcEvents self) noexcept nogil:
    """Until told to stop: 0, or -errno."""
    cdef pollfd fds[2]
    cdef uint64_t times
    cdef int count
    fds[0].fd, fds[0].events = self._socket.fd, POLLIN
    fds[1].fd, fds[1].events = self._wake, POLLIN
    while True:
        if poll(fds, 2, -1) < 0:
            if errno == EINTR:
                continue
            return -errno
        if fds[1].revents:
            eventfd_read(self._wake, &times)
            if self._stopping:
                return 0
        count = self.drain(self._cache)
        if count < 0:
            return count


@cython.final
@cython.auto_pickle(False)
cdef class ProcEvents:
    """Keeps a ProcessCache told of every fork, exec and exit from now on.

    `receive_buffer`: bytes of kernel memory for messages not yet read. Needs CAP_NET_ADMIN, CAP_SYS_ADMIN if the thread is
    not in the initial network namespace, and the initial pid and user namespaces; OSError says which is missing.
    `start()` runs it in a thread of its own; as a context manager it is started and closed. Source: the kernel's proc
    connector (linux/cn_proc.h). forks, execs, exits: events heard; unread: programs that ended before their command line
    could be read; lost, overruns: messages the kernel dropped, and how often it said so.
    """

    def __cinit__(self):
        self._wake = -1

    def __init__(self, ProcessCache cache not None, int receive_buffer=8 << 20):
        if self._socket is not None:
            raise ValueError("opened already")
        self._cache = cache
        self._readings = Readings()
        self._socket = connector_open(SLOTS, receive_buffer, -1)
        history_begun(cache, procfs_monotonic_ns())

    def __dealloc__(self):
        if self._wake >= 0:
            c_close(self._wake)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.close()

    cdef int drain(self, ProcessCache cache) noexcept nogil:
        cdef int result
        history_telling(cache, True)
        result = self._drain(cache)
        history_telling(cache, self._losing)
        return result

    cpdef void glance(self) noexcept nogil:
        """Where nothing is queued, what has happened until now counts as told. Never waits; from any thread."""
        cdef int64_t now = procfs_monotonic_ns()
        cdef pollfd queue
        queue.fd, queue.events, queue.revents = self._socket.fd, POLLIN, 0
        # An overrun polls as an error. In this order: what had left the queue when it was seen empty was being told by then.
        if poll(&queue, 1, 0) == 0:
            history_silent(self._cache, now)

    cdef int _drain(self, ProcessCache cache) noexcept nogil:
        cdef proc_event event
        cdef const void *data
        cdef size_t size
        cdef uint32_t ack
        cdef int64_t now
        cdef int count, i, round, total = 0
        for round in range(ROUNDS):
            now = procfs_monotonic_ns()
            count = self._socket.receive(SLOTS)
            if count == -ENOBUFS:
                # Said before the messages that were queued earlier are handed out: where among them the gap is,
                # cannot be told, so that all are skipped until the queue is empty and the kernel goes on.
                self._losing = True
                history_lapsed(cache)
                continue
            if count < 0:
                history_lapsed(cache)
                return count
            if count == 0:
                if self._losing:
                    self._losing = False
                    history_begun(cache, now)
                else:
                    history_reached(cache, now)
                return total
            for i in range(0 if self._losing else count):
                size = 0
                data = self._socket.datagram(i, &size)
                if connector_event(data, size, &event, &ack):
                    event_tell(self, cache, &event)
            total += count
        return total

    def start(self, bint realtime=True, settled=None):
        """Runs it in a daemon thread, until close(). OSError if there is no descriptor to be had.

        realtime: run the thread with SCHED_FIFO priority 1 if that is permitted (CAP_SYS_NICE), and with it one for each
        processor that reads what is executed there (see ExecReaders); `realtime` and `processors` tell what came of it.
        Without, a tenth to a third of the programs that live for a millisecond is missed. They sleep but for some
        100 us after each execve. settled: called in each thread before it begins, to give up privileges.
        """
        if self._thread is not None:
            raise ValueError("started already")
        self.fileno()
        self._wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self._wake < 0:
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")
        self._stopping = False
        self.realtime = False
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nfct-procevents", daemon=True, args=(realtime, settled, ready))
        self._thread.start()
        ready.wait()
        if self._failed:
            raise OSError(self._failed, f"proc connector: its thread cannot begin: {os.strerror(self._failed)}")
        cache_lock(self._cache)
        self._cache._poke = self._wake
        cache_unlock(self._cache)

    def _run(self, realtime, settled, ready):
        cdef int result
        try:
            self._prepare(realtime, settled)
        except OSError as error:
            self._failed = error.errno
        finally:
            ready.set()
        if self._failed == 0:
            with nogil:
                result = serve(self)
            self._failed = -result
        if self._failed:
            history_lapsed(self._cache)

    def _prepare(self, realtime, settled):
        try:
            if realtime:
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
                self.realtime = True
                self._readers = ExecReaders(self._cache, self._readings, settled)
        except OSError:
            pass        # it is late for some, and has read what it could
        if settled is not None:
            settled()

    def poll(self):
        """Takes in what is there, without blocking, where no thread was started; the number of messages. OSError."""
        cdef int count
        if self._thread is not None:
            raise ValueError("its own thread does this")
        self.fileno()
        with nogil:
            count = self.drain(self._cache)
        if count < 0:
            raise OSError(-count, f"proc connector: {os.strerror(-count)}")
        return count

    def feed(self, bytes datagram not None):
        """Takes a message as if the kernel had sent it; False if it is none. Not while the thread runs."""
        cdef proc_event event
        cdef uint32_t ack
        if self._thread is not None:
            raise ValueError("its own thread reads")
        if not connector_event(<const char *>datagram, len(datagram), &event, &ack):
            return False
        event_tell(self, self._cache, &event)
        return True

    def fileno(self):
        """The netlink socket, readable when there are events; ValueError once closed."""
        if self._socket is None:
            raise ValueError("closed")
        return self._socket.fileno()

    @property
    def processors(self):
        """Processors on which a program is read before it runs, int."""
        return self._readers.processors if self._readers is not None else 0

    @property
    def lost(self):
        """Messages the kernel dropped for want of room, int."""
        if self._socket is None:
            return 0
        if self._thread is None:
            self._socket.count_lost()
        return self._socket.lost

    @property
    def overruns(self):
        """Times that messages were found to be missing, int."""
        return self._socket.overruns if self._socket is not None else 0

    @property
    def failed(self):
        """The errno that ended the thread, int; 0 while all is well."""
        return self._failed

    def close(self):
        """Ends the thread and stops listening; what is known stays known for as long as the cache keeps it."""
        if self._thread is not None:
            cache_lock(self._cache)
            self._cache._poke = -1
            cache_unlock(self._cache)
            self._stopping = True
            eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
            if self._readers is not None:
                self._readers.close()
                self._readers = None
            c_close(self._wake)
            self._wake = -1
        if self._socket is not None and self._socket.fd >= 0:
            history_lapsed(self._cache)
            connector_close(self._socket)
