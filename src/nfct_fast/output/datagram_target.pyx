"""A target that takes each entry as a datagram: the journal, /dev/log, or syslog over UDP."""
cimport cython
from libc.errno cimport EAGAIN, ECONNREFUSED, EINTR, EMSGSIZE, ENOBUFS, errno
from libc.stdint cimport uint32_t
from nfct_fast.output.sink cimport Sink
from nfct_fast.output.target cimport Target, entry_t
from sys_socket cimport MSG_DONTWAIT, send

import socket

from nfct_fast.output.target import RETRY_S

_SEND_BUFFER = 8 << 20   # what the system allows of it: a datagram has to fit in, and many may wait


@cython.final
@cython.auto_pickle(False)
cdef class DatagramTarget(Target):
    """Sends each entry to one address.

    Args:
        name: For messages.
        stop_fd: See Sink.
        family: AF_UNIX, whose receiver is waited for when it is slow, or else AF_INET, AF_INET6.
        address: As socket.connect() takes it.

    Raises OSError: AF_UNIX: nobody receives at the address.
    """
    cdef Sink sink               # to wait
    cdef object socket
    cdef object address
    cdef bint local
    cdef uint32_t flows          # of the last datagram that was sent

    def __cinit__(self, name, int stop_fd, *, family, address):
        self.name, self.address, self.local = name, address, family == socket.AF_UNIX
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.socket.connect(address)
        self.sink = Sink(self.socket.fileno(), stop_fd)

    cdef int put(self, const char *data, const entry_t *entries, size_t count) noexcept nogil:
        cdef size_t size
        cdef int result = 0
        self.done = 0
        while self.done < count:
            size = entries[self.done].size
            if send(self.sink.fd, data, size, MSG_DONTWAIT) < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN or errno == ENOBUFS:
                    result = self.sink.wait()
                    if result < 0:
                        return result
                    continue
                if errno == ECONNREFUSED and not self.local:
                    self.refused += self.flows      # those of an earlier one; this one was not sent yet
                    continue
                if errno != EMSGSIZE:
                    return -errno
                self.refused += entries[self.done].flows
            else:
                self.flows = entries[self.done].flows
            data += size
            self.done += 1
        return 0

    def recover(self, number) -> float:
        """See Target: the receiver was started again, or will be."""
        try:
            self.socket.connect(self.address)
        except OSError:
            return RETRY_S
        return 0.0
