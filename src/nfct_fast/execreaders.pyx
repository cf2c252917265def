"""One thread for each processor, which reads what was executed there before it runs its first instruction.

execve tells the proc connector in the context of the program. A thread of real-time priority that is woken by it on the
same processor pushes the program aside, so that even the shortest one is read while it is there. One thread alone is too
late for some: where its own processor is idle, a virtual machine may take 1 to 5 ms to wake it (measured: 15 of 300
shells of 1.3 ms had ended, and none with a thread for each processor).
"""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int32_t, int64_t, uint32_t
from posix.unistd cimport close as c_close

from linux_cn_proc cimport PROC_EVENT_EXEC, proc_event
from sys_socket cimport EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, eventfd_write, poll, pollfd

from .netlink cimport NetlinkSocket
from .process cimport process_read, process_t
from .processcache cimport ProcessCache
from .procconnector cimport connector_close, connector_event, connector_open
from .procfs cimport procfs_monotonic_ns
from .readings cimport Readings

import os
import threading

cdef enum:
    SLOTS = 8
    RECEIVE_BUFFER = 256 << 10
    # Every event is offered to every socket: 0.11 us for each, 20 us with 64 for a process that is made, executed and
    # ends.
    PROCESSORS = 64


cdef void read_new(ExecReaders self, const proc_event *event) noexcept nogil:
    cdef int32_t pid = event.event_data.exec_.process_pid
    cdef int64_t when = <int64_t>event.timestamp_ns
    cdef int64_t begun
    cdef process_t *process
    cdef int error
    if event.what != PROC_EVENT_EXEC or pid <= 0 or not self._readings.claim(pid, when):
        return
    begun = procfs_monotonic_ns()
    process = process_read(self._cache._root, pid, self._cache._cmdline_limit, &error)
    self._readings.put(pid, when, process, begun, procfs_monotonic_ns())


cdef void serve(ExecReaders self, NetlinkSocket sock) noexcept nogil:
    # Whatever goes wrong here only costs the early reading: the events are heard, and counted, elsewhere too.
    cdef pollfd fds[2]
    cdef proc_event event
    cdef const void *data
    cdef size_t size
    cdef uint32_t ack
    cdef int count, i
    fds[0].fd, fds[0].events = sock.fd, POLLIN
    fds[1].fd, fds[1].events = self._stop, POLLIN
    while True:
        if poll(fds, 2, -1) < 0:
            if errno == EINTR:
                continue
            return
        if fds[1].revents:
            return
        count = sock.receive(SLOTS)
        if count < 0 and count != -ENOBUFS:
            return      # it would come again at once, and this thread goes before all others
        for i in range(count):
            size = 0
            data = sock.datagram(i, &size)
            if connector_event(data, size, &event, &ack):
                read_new(self, &event)


@cython.final
@cython.auto_pickle(False)
cdef class ExecReaders:
    """Reads what is executed on any of the processors this process may use, from now on, and puts it into `readings`.

    Needs what ProcEvents does, and CAP_SYS_NICE for SCHED_FIFO: OSError says what is missing. Does nothing on more than 64
    processors. settled: called in every thread before it begins, to give up privileges.
    """

    def __cinit__(self):
        self._stop = -1

    def __init__(self, ProcessCache cache not None, Readings readings not None, settled=None):
        self._cache, self._readings, self._settled = cache, readings, settled
        self._sockets, self._threads = [], []
        processors = os.sched_getaffinity(0)
        if len(processors) > PROCESSORS:
            return
        self._stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self._stop < 0:
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")
        try:
            for processor in processors:
                sock = connector_open(SLOTS, RECEIVE_BUFFER, processor)
                self._sockets.append(sock)
                ready = threading.Event()
                thread = threading.Thread(target=self._run, name=f"nfct-exec/{processor}", daemon=True,
                                          args=(sock, processor, ready))
                thread.start()
                self._threads.append(thread)
                ready.wait()
        except BaseException:
            self.close()
            raise

    def __dealloc__(self):
        if self._stop >= 0:
            c_close(self._stop)

    def _run(self, NetlinkSocket sock not None, processor, ready):
        try:
            os.sched_setaffinity(0, {processor})
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
            if self._settled is not None:
                self._settled()
        except OSError:
            return      # the processor has just gone; or the privileges would stay, and nothing is done with them
        finally:
            ready.set()
        with nogil:
            serve(self, sock)

    @property
    def processors(self):
        """How many are looked after, int."""
        return len(self._threads)

    def close(self):
        """Ends the threads; closing twice is harmless."""
        if self._stop < 0:
            return
        if eventfd_write(self._stop, 1) < 0:
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            connector_close(sock)
        self._threads, self._sockets = [], []
        c_close(self._stop)
        self._stop = -1
