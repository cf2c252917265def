"""Fork, exec and exit as they happen, from the kernel's proc connector, told to the cache of process facts.

A program may be gone a millisecond after it was executed, so its own thread waits for the events and reads /proc at
once, without the GIL. Lost messages are noticed: what was known then counts up to the last event, and no longer.
"""
cimport cython
from libc.errno cimport EINTR, ENOBUFS, errno
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close as c_close

from linux_cn_proc cimport (CN_IDX_PROC, CN_VAL_PROC, NETLINK_CONNECTOR, PROC_CN_MCAST_IGNORE, PROC_CN_MCAST_LISTEN,
                            PROC_EVENT_COMM, PROC_EVENT_EXEC, PROC_EVENT_EXIT, PROC_EVENT_FORK, PROC_EVENT_GID,
                            PROC_EVENT_NONE, PROC_EVENT_UID, cn_msg, proc_event)
from linux_filter cimport (BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MISC, BPF_RET, BPF_TAX, BPF_W, BPF_X, sock_filter)
from linux_netlink cimport NLMSG_DONE, nlmsghdr
from netinet_in cimport htonl
from sys_socket cimport (EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, eventfd_read, eventfd_write, poll, pollfd)

from .netlink cimport NetlinkSocket
from .processcache cimport ProcessCache, cache_lock, cache_unlock
from .processhistory cimport (ALTERED_COMM, ALTERED_GID, ALTERED_UID, history_altered, history_begun, history_executed,
                              history_exited, history_forked, history_lapsed, history_reached)
from .procfs cimport procfs_monotonic_ns

import os
import threading
import time

from .netns import Netns

cdef enum:
    BODY = sizeof(nlmsghdr) + sizeof(cn_msg)
    DATA = 16                # of proc_event: what, cpu, timestamp
    FIRST = BODY + DATA      # process_pid, and of fork parent_pid
    SLOTS = 128
    ROUNDS = 32              # of SLOTS messages, until it is looked whether to stop


cdef sock_filter instruction(int code, uint32_t k, int jt=0, int jf=0) noexcept:
    cdef sock_filter result
    result.code, result.jt, result.jf, result.k = <unsigned short>code, <unsigned char>jt, <unsigned char>jf, k
    return result


cdef bytes filter_program():
    """Lets through what concerns processes and not single threads: those have a pid that is not their process's.

    A filter loads numbers as if they came in network order.
    """
    cdef sock_filter program[19]
    program[0] = instruction(BPF_LD | BPF_W | BPF_ABS, BODY)
    program[1] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_NONE), 15)
    program[2] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXEC), 14)
    program[3] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_FORK), 5)
    program[4] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXIT), 8)
    program[5] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_UID), 7)
    program[6] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_GID), 6)
    program[7] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_COMM), 5)
    program[8] = instruction(BPF_RET | BPF_K, 0)
    program[9] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST + 8)
    program[10] = instruction(BPF_MISC | BPF_TAX, 0)
    program[11] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST + 12)
    program[12] = instruction(BPF_JMP | BPF_JEQ | BPF_X, 0, 4, 5)
    program[13] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST)
    program[14] = instruction(BPF_MISC | BPF_TAX, 0)
    program[15] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST + 4)
    program[16] = instruction(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1)
    program[17] = instruction(BPF_RET | BPF_K, <uint32_t>0xffffffff)
    program[18] = instruction(BPF_RET | BPF_K, 0)
    return (<char *>program)[:sizeof(program)]


cdef bint message_event(const void *data, size_t size, proc_event *event, uint32_t *ack) noexcept nogil:
    """One datagram as an event; False if it is none. Copied out: a proc_event stands at an odd multiple of 4."""
    cdef nlmsghdr header
    cdef cn_msg message
    cdef size_t length
    if data == NULL or size < BODY + DATA:
        return False
    memcpy(&header, data, sizeof(header))
    memcpy(&message, <const char *>data + sizeof(header), sizeof(message))
    if (header.nlmsg_type != NLMSG_DONE or header.nlmsg_len < BODY + DATA or header.nlmsg_len > size
            or message.id.idx != CN_IDX_PROC or message.id.val != CN_VAL_PROC):
        return False
    length = min(<size_t>message.len, header.nlmsg_len - <size_t>BODY, sizeof(proc_event))
    if length <= DATA:
        return False
    memset(event, 0, sizeof(event[0]))
    memcpy(event, <const char *>data + BODY, length)
    ack[0] = message.ack
    return True


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
        self.unread += not history_executed(cache, pid, when)
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
        try:
            self._open(receive_buffer)
        except ConnectionRefusedError:
            # Not the initial network namespace. Pid 1 is in it, but may be closed even to root; pid 2 is kthreadd.
            for path in ("/proc/1/ns/net", "/proc/2/ns/net", "/proc/self/ns/net"):
                try:
                    with Netns(path) as home, home.entered():
                        self._open(receive_buffer)
                    break
                except OSError:
                    continue
            else:
                raise

    def _open(self, int receive_buffer):
        try:
            sock = NetlinkSocket(NETLINK_CONNECTOR, SLOTS, 128)
        except OSError as error:
            raise OSError(error.errno, "proc connector: this kernel has none (CONFIG_CONNECTOR)") from error
        try:
            sock.set_receive_buffer(receive_buffer)
            sock.attach_filter(filter_program())
            try:
                sock.join(CN_IDX_PROC)
            except PermissionError as error:
                raise PermissionError(error.errno, "proc connector: needs CAP_NET_ADMIN") from error
            listen(sock)
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        history_begun(self._cache, procfs_monotonic_ns())

    def __dealloc__(self):
        if self._wake >= 0:
            c_close(self._wake)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.close()

    cdef int drain(self, ProcessCache cache) noexcept nogil:
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
                if message_event(data, size, &event, &ack):
                    event_tell(self, cache, &event)
            total += count
        return total

    def start(self, bint realtime=True, settled=None):
        """Runs it in a daemon thread, until close(). OSError if there is no descriptor to be had.

        realtime: run the thread with SCHED_FIFO priority 1 if that is permitted (CAP_SYS_NICE); `realtime` then tells
        whether it is. It sleeps but for some 100 us after each execve, and of the programs that live for a millisecond
        it misses a tenth to a third without. settled: called in the thread before it begins, to give up privileges.
        """
        if self._thread is not None:
            raise ValueError("started already")
        self.fileno()
        self._wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self._wake < 0:
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")
        self._stopping = False
        self.realtime = False
        self._thread = threading.Thread(target=self._run, name="nfct-procevents", daemon=True, args=(realtime, settled))
        self._thread.start()
        cache_lock(self._cache)
        self._cache._poke = self._wake
        cache_unlock(self._cache)

    def _run(self, realtime, settled):
        cdef int result
        if realtime:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
                self.realtime = True
            except OSError:
                pass
        if settled is not None:
            settled()
        with nogil:
            result = serve(self)
        self._failed = -result
        if result < 0:
            history_lapsed(self._cache)

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
        if not message_event(<const char *>datagram, len(datagram), &event, &ack):
            return False
        event_tell(self, self._cache, &event)
        return True

    def fileno(self):
        """The netlink socket, readable when there are events; ValueError once closed."""
        if self._socket is None:
            raise ValueError("closed")
        return self._socket.fileno()

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
            c_close(self._wake)
            self._wake = -1
        if self._socket is not None and self._socket.fd >= 0:
            history_lapsed(self._cache)
            try:
                # Kernels before 6.6 count listeners, and go on making events for those that left silently.
                self._socket.send(request(PROC_CN_MCAST_IGNORE, 0))
            except OSError:
                pass
            self._socket.close()


cdef bytes request(int what, uint32_t ack):
    cdef nlmsghdr header
    cdef cn_msg message
    cdef uint32_t operation = what
    memset(&header, 0, sizeof(header))
    memset(&message, 0, sizeof(message))
    header.nlmsg_len = BODY + sizeof(operation)
    header.nlmsg_type = NLMSG_DONE
    message.id.idx, message.id.val = CN_IDX_PROC, CN_VAL_PROC
    message.ack, message.len = ack, sizeof(operation)
    return ((<char *>&header)[:sizeof(header)] + (<char *>&message)[:sizeof(message)]
            + (<char *>&operation)[:sizeof(operation)])


def listen(NetlinkSocket sock):
    """Asks the kernel for events and waits for its answer; everything that came before it is skipped."""
    cdef proc_event event
    cdef uint32_t ack
    cdef uint32_t mine = int.from_bytes(os.urandom(4), "little")
    cdef pollfd fds
    try:
        sock.send(request(PROC_CN_MCAST_LISTEN, mine))
    except ConnectionRefusedError as error:
        raise OSError(error.errno, "proc connector: exists only in the initial network namespace, and with "
                      "CONFIG_PROC_EVENTS") from error
    end = time.monotonic() + 0.2    # it answers within the send
    fds.fd, fds.events = sock.fd, POLLIN
    while time.monotonic() < end:
        poll(&fds, 1, 20)
        for datagram in sock.messages_now():
            if not message_event(<char *><bytes>datagram, len(datagram), &event, &ack):
                continue
            if event.what == PROC_EVENT_NONE and ack == <uint32_t>(mine + 1):
                if event.event_data.ack.err:
                    raise OSError(event.event_data.ack.err, "proc connector: needs CAP_NET_ADMIN in the initial "
                                  f"user namespace: {os.strerror(event.event_data.ack.err)}")
                return
    raise PermissionError(1, "proc connector: no answer: it serves only the initial pid and user namespaces, and kernels "
                          "with CONFIG_PROC_EVENTS")
