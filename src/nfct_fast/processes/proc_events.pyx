"""Fork, exec and exit events from the proc connector, for kernels that cannot report programs by BPF.

A thread receives them and reads each new program from /proc. That is late: most programs that live for a millisecond
have ended by then. Source: linux/cn_proc.h.
"""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int32_t, int64_t, uint32_t
from posix.time cimport nanosleep, timespec

from linux_cn_proc cimport PROC_EVENT_EXEC, PROC_EVENT_EXIT, PROC_EVENT_FORK, proc_event
from sys_socket cimport POLLIN, poll, pollfd

from nfct_fast.processes.process cimport process_drop, process_t
from nfct_fast.processes.proc_connector cimport connector_close, connector_event, connector_open
from nfct_fast.processes.process_reader cimport ProcessReader
from nfct_fast.kernel.clock cimport boottime_ns, monotonic_ns
from nfct_fast.kernel.wakeup cimport Wakeup
from nfct_fast.processes.history cimport History

import os
import threading

cdef enum:
    SLOTS = 128


cdef int64_t boottime_offset() noexcept nogil:
    """Return by how many ns CLOCK_BOOTTIME, the clock of the notes, is ahead of CLOCK_MONOTONIC, the connector's."""
    return boottime_ns() - monotonic_ns()


cdef void apply_event(ProcEvents self, const proc_event *event) noexcept nogil:
    cdef int64_t when = <int64_t>event.timestamp_ns + boottime_offset()
    cdef int32_t pid = event.event_data.exit.process_pid
    cdef process_t *process
    if event.what == PROC_EVENT_FORK:
        pid = event.event_data.fork.child_pid
        if pid == event.event_data.fork.child_tgid and pid > 0:
            self._history.on_fork(pid, event.event_data.fork.parent_tgid, when)
    elif pid != event.event_data.exit.process_tgid or pid <= 0:
        return
    elif event.what == PROC_EVENT_EXEC:
        process = self._reader.read(pid)
        self._history.on_exec(pid, when, process, monotonic_ns() + boottime_offset())
        process_drop(process)
    elif event.what == PROC_EVENT_EXIT:
        self._history.on_exit(pid, when)


@cython.final
@cython.auto_pickle(False)
cdef class ProcEvents:
    """A thread that reports every fork, exec and exit to a History, from start() to close().

    Needs CAP_NET_ADMIN, CAP_SYS_ADMIN if the thread is not in the initial network namespace, and the initial pid and
    user namespaces.

    Args:
        programs: The History.
        reader: The reader of new programs.
        receive_buffer: Bytes of kernel memory for events that have not been received yet.

    Raises:
        OSError: The message says which of these privileges or namespaces is missing.
    """

    def __init__(self, History programs not None, ProcessReader reader not None, int receive_buffer=8 << 20):
        if self._socket is not None:
            raise ValueError("opened already")
        self._history, self._reader = programs, reader
        self._socket = connector_open(SLOTS, receive_buffer)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.close()

    cdef int _receive(self) noexcept nogil:
        """Receive the events queued now. 0 or -errno. A lost event is made up for by the process's next one."""
        cdef proc_event event
        cdef const void *data
        cdef size_t size
        cdef uint32_t ack
        cdef int count, i
        self._history.reporting(True)
        count = self._socket.receive(SLOTS)
        for i in range(count):
            size = 0
            data = self._socket.datagram(i, &size)
            if connector_event(data, size, &event, &ack):
                apply_event(self, &event)
        self._history.reporting(False)
        return min(count, 0) if count != -ENOBUFS else 0

    cdef void wait_drained(self) noexcept nogil:
        """See proc_events.pxd."""
        cdef int64_t now = monotonic_ns() + boottime_offset()
        cdef timespec pause
        cdef pollfd queue
        cdef int _
        pause.tv_sec, pause.tv_nsec = 0, 100000
        queue.fd, queue.events = self._socket.fd, POLLIN
        for _ in range(10):
            # poll() reports an overrun as an error. The order matters: an event that had left the queue before poll()
            # was already being reported.
            queue.revents = 0
            if poll(&queue, 1, 0) == 0 and self._history.has_reported(now):
                return
            nanosleep(&pause, NULL)

    cdef int _serve(self) noexcept nogil:
        """Receive events until close(). 0 or -errno."""
        cdef pollfd fds[2]
        cdef int result = 0
        fds[0].fd, fds[0].events = self._socket.fd, POLLIN
        fds[1].fd, fds[1].events = self._wake.fd, POLLIN
        while not self._stopping and result == 0:
            if poll(fds, 2, -1) < 0:
                if errno != EINTR:
                    return -errno
                continue
            if fds[0].revents:
                result = self._receive()
        return result

    def start(self, drop_rights=None):
        """Run in a daemon thread until close(). The thread calls drop_rights() first, if given. OSError."""
        if self._thread is not None:
            raise ValueError("started already")
        self._wake = Wakeup()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="nfct_fast connector", daemon=True, args=(drop_rights, ready))
        self._thread.start()
        ready.wait()
        if self.failed:
            raise OSError(self.failed, f"proc connector: cannot give up privileges: {os.strerror(self.failed)}")

    def _run(self, drop_rights, ready):
        cdef int result
        try:
            if drop_rights is not None:
                drop_rights()
        except OSError as error:
            self.failed = error.errno
        finally:
            ready.set()
        if self.failed == 0:
            with nogil:
                result = self._serve()
            self.failed = -result

    @property
    def lost(self):
        """Number of events that the kernel dropped because the receive buffer was full, int."""
        return self._socket.lost if self._socket is not None else 0

    def close(self):
        """End the thread and unsubscribe; closing twice is harmless. A forked child only closes the descriptors."""
        if self._socket is not None and not self._socket.fork_guard.here():
            self._socket.close()
            return
        if self._thread is not None:
            self._stopping = True
            self._wake.notify()
            self._thread.join()
            self._thread = None
        if self._socket is not None and self._socket.fd >= 0:
            connector_close(self._socket)
