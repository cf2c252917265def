"""`Conntrack`: the rooms joined. Receive, decode, filter and attribute a batch without the GIL, then hand it over."""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from linux_netlink cimport (NETLINK_NETFILTER, NFNLGRP_CONNTRACK_DESTROY, NFNLGRP_CONNTRACK_NEW,
                            NFNLGRP_CONNTRACK_UPDATE)
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from sys_epoll cimport (EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait)
from sys_socket cimport AF_INET, AF_INET6, EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_write
from .attribution cimport Attribution
from .flow cimport FlowDecoder, flow_t
from .netlink cimport NetlinkSocket
from .record cimport Batch, record_drop, record_t

import errno as errno_names
import os
import threading
from typing import NamedTuple

from .diagnosis import reasons_for_silence
from .filter import socket_filter, wanted_protocols
from .nftables import TrackingTable

# A NEW event is charged 1,280 bytes whatever its size: this, doubled by the kernel, holds 105,000.
DEFAULT_RCVBUF = 64 << 20
_GROUPS = {"NEW": NFNLGRP_CONNTRACK_NEW, "UPDATE": NFNLGRP_CONNTRACK_UPDATE, "DESTROY": NFNLGRP_CONNTRACK_DESTROY}

cdef enum:
    SLOTS = 64              # datagrams a system call; an event is one
    BATCH = 2 * SLOTS
    READY = 16
    OTHER_FD = 0xffff


class Stats(NamedTuple):
    """Counts since the start. events = delivered + filtered (those not wanted, refused only after decoding)."""

    events: int         # decoded
    filtered: int
    lost: int           # by the kernel, because the receive buffer was full: exact
    overruns: int       # congestions: each may stand for many lost events
    undecoded: int      # messages too long or not understood
    named: int          # flows whose owner has a process
    rcvbuf: int         # bytes the kernel grants each receive buffer


cdef object _error(str what):
    cdef int number = errno
    return OSError(number, f"{what}: {os.strerror(number)}")


@cython.final
@cython.auto_pickle(False)
cdef class Conntrack:
    """New network flows with the processes behind them: a context manager and an iterator of `Flow`.

    events: any of "NEW", "UPDATE", "DESTROY". protocol: a regular expression searched in names like "ipv4/tcp";
    None for all. attribution: how owners are looked for, see ATTRIBUTIONS; "off" for not at all. rcvbuf: bytes of
    the kernel's receive buffer, capped by net.core.rmem_max without CAP_NET_ADMIN in the initial namespace.
    track: turn connection tracking on in this network namespace as long as this object is open (Linux 5.12).
    probe: try at the start whether events arrive, by an empty datagram over loopback; `silence` has the answer.

    It hears the network namespace of the thread that makes it. Iterating blocks until a flow comes, and ends when
    another thread calls close(). One thread at a time may read.

    Needs CAP_NET_ADMIN for the events, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to look into other users' processes.
    Raises ValueError for a bad argument, PermissionError and OSError with what to do about it.
    """
    cdef FlowDecoder decoder
    cdef Attribution attribution
    cdef NetlinkSocket socket
    cdef Batch batch
    cdef object table
    cdef object lock
    cdef int epoll
    cdef int wake
    cdef bint closed
    cdef bint reading
    cdef bint woken
    cdef bint filtering
    cdef unsigned char wanted4[256]
    cdef unsigned char wanted6[256]
    cdef uint64_t events
    cdef uint64_t filtered
    cdef uint64_t named
    cdef int rcvbuf
    cdef readonly tuple silence     # sentences that tell why events can never arrive here, and what to do; else empty

    def __cinit__(self):
        self.epoll = self.wake = -1
        self.closed = True

    def __init__(self, *, events=("NEW",), protocol=None, attribution="auto", int rcvbuf=DEFAULT_RCVBUF,
                 bint track=False, bint probe=True):
        groups = self._groups(events)
        wanted = wanted_protocols(protocol)
        for family, proto in wanted:
            if family == AF_INET:
                self.wanted4[proto] = 1
            else:
                self.wanted6[proto] = 1
        if rcvbuf < 4096:
            raise ValueError(f"rcvbuf {rcvbuf}: a receive buffer of at least 4096 bytes is needed")
        self.lock = threading.Lock()
        self.decoder = FlowDecoder()
        self.batch = Batch(BATCH)
        self.closed = False
        try:
            self._open(groups, socket_filter(wanted), attribution, rcvbuf, track, probe)
        except BaseException:
            self._release()
            raise

    @staticmethod
    def _groups(events):
        names = [events] if isinstance(events, str) else list(events)
        try:
            groups = {_GROUPS[name.upper()] for name in names}
        except (KeyError, AttributeError):
            raise ValueError(f"events {events!r}: there are {', '.join(_GROUPS)}") from None
        if not groups:
            raise ValueError("events is empty: nothing would ever come")
        return groups

    def _open(self, groups, program, attribution, int rcvbuf, bint track, bint probe):
        if track:
            self.table = TrackingTable()
        self.silence = tuple(reasons_for_silence(probe))
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise _error("epoll")
        self.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wake < 0:
            raise _error("eventfd")
        self._watch(self.wake, EPOLLIN, OTHER_FD)
        self.attribution = Attribution(attribution)
        self.socket = NetlinkSocket(NETLINK_NETFILTER, SLOTS)
        self.rcvbuf = self.socket.set_receive_buffer(rcvbuf)
        if program is not None:
            self.socket.attach_filter(program)
        for group in groups:
            try:
                self.socket.join(group)
            except PermissionError:
                raise PermissionError(errno_names.EPERM, "conntrack events need CAP_NET_ADMIN in this network "
                                                         "namespace (run as root)") from None
        self._watch(self.socket.fileno(), EPOLLIN, 0)

    def _watch(self, int fd, uint32_t events, uint32_t index):
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = events
        event.data.u32 = index
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise _error("epoll")

    def watch(self, int fd, int events=EPOLLIN) -> None:
        """Have batches() also return, empty, when fd is ready for events (EPOLL*); OSError(EPERM) for a plain file."""
        self._check()
        self._watch(fd, events, OTHER_FD)

    def _check(self):
        if self.closed:
            raise ValueError("operation on closed Conntrack")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self) -> None:
        """End the events and free everything; from any thread, more than once. A blocked reader's iteration ends."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            if self.reading:
                # The reader frees what it is using, when it has left.
                eventfd_write(self.wake, 1)
                return
        self._release()

    def _release(self):
        self.closed = True
        if self.socket is not None:
            self.socket.close()
        if self.attribution is not None:
            self.attribution.close()
        if self.table is not None:
            self.table.close()
        for fd in (self.epoll, self.wake):
            if fd >= 0:
                os.close(fd)
        self.epoll = self.wake = -1

    def fileno(self) -> int:
        """A descriptor that polls readable when read(0) has something to return; for an event loop of your own."""
        self._check()
        return self.epoll

    def stats(self) -> Stats:
        """Counts since the start; also after close()."""
        if not self.closed:
            self.socket.count_lost()
        return Stats(self.events, self.filtered, self.socket.lost, self.socket.overruns,
                     self.socket.truncated + self.decoder.errors, self.named, self.rcvbuf)

    @property
    def lost(self) -> int:
        """Events the kernel dropped so far because the receive buffer was full, as far as they were noticed."""
        return self.socket.lost

    cdef bint _is_wanted(self, const flow_t *flow) noexcept nogil:
        if flow.orig.family == AF_INET:
            return self.wanted4[flow.orig.proto]
        return flow.orig.family == AF_INET6 and self.wanted6[flow.orig.proto]

    cdef void _decode(self, int count) noexcept nogil:
        cdef timespec now
        cdef int64_t time
        cdef flow_t flow
        cdef size_t length = 0
        cdef const void *data
        cdef int i
        cdef record_t *record
        clock_gettime(CLOCK_REALTIME, &now)
        time = <int64_t>now.tv_sec * 1000000000 + now.tv_nsec
        for i in range(count):
            data = self.socket.datagram(i, &length)
            if data == NULL or self.decoder.decode(data, length, &flow, 1, time, 0) != 1:
                continue
            self.events += 1
            if not self._is_wanted(&flow):
                self.filtered += 1
                continue
            record = &self.batch.records[self.batch.count]
            memset(record, 0, sizeof(record_t))
            record.flow = flow
            self.batch.count += 1

    cdef int _fill(self, int timeout) noexcept nogil:
        """Wait up to timeout ms (-1: for ever) and fill the batch: its count, 0 when woken or out of time, or -errno."""
        cdef epoll_event ready[READY]
        cdef int count
        cdef int i
        self.batch.clear()
        while True:
            count = epoll_wait(self.epoll, ready, READY, timeout)
            if count <= 0:
                return 0 if count == 0 or errno == EINTR else -errno
            for i in range(count):
                if ready[i].data.u32 == OTHER_FD:
                    self.woken = True
                    continue
                count = self.socket.receive()
                if count > 0:
                    self._decode(count)
                elif count < 0 and count != -ENOBUFS:
                    return count
            for i in range(self.batch.count):
                self.attribution.resolve(&self.batch.records[i])
                if self.batch.records[i].owner.process != NULL:
                    self.named += 1
            if self.batch.count or self.woken:
                self.woken = False
                return self.batch.count

    cdef int _read(self, int timeout) except -1:
        """Fill the batch once, as the one reader; 0 also when closed meanwhile."""
        cdef int count
        with self.lock:
            self._check()
            if self.reading:
                raise RuntimeError("another thread is reading this Conntrack")
            self.reading = True
        try:
            with nogil:
                count = self._fill(timeout)
        finally:
            with self.lock:
                self.reading = False
                left = self.closed
            if left:
                self._release()
        if count < 0:
            raise OSError(-count, f"receiving conntrack events: {os.strerror(-count)}")
        return count

    def next_batch(self, timeout: float | None = None) -> Batch:
        """Wait up to timeout seconds (None: for ever) for flows; return them as a Batch, valid until the next call.

        It is empty when time is out, a watched descriptor is ready, a signal came or close() was called.
        """
        self._read(-1 if timeout is None else max(0, <int>(timeout * 1000)))
        return self.batch

    def read(self, timeout: float | None = None) -> list:
        """Wait up to timeout seconds (None: for ever) and return the flows at hand; [] when time is out or closed."""
        if len(self.batch) == 0:
            self.next_batch(timeout)
        return list(self.batch)

    def __iter__(self):
        return self

    def __next__(self):
        while len(self.batch) == 0:
            if self.closed:
                raise StopIteration
            self._read(-1)
        return next(self.batch)
