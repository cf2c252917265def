"""Requests to a helper process, which has kept privileges that the program gave up, and its replies.

The helper runs on the caller's processor, because waking it on another one that is idle takes longer than most
requests. Other processes of the same user can stop it (SIGSTOP). The caller therefore waits for one second at most, and
sends no further request before the late reply has come.
"""
cimport cython
from libc.errno cimport EAGAIN, EPIPE, ESRCH, errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from nfct_fast.kernel.pass_fd cimport pass_receive, pass_send
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock
from sys_socket cimport MSG_DONTWAIT

from nfct_fast.kernel.mutex cimport mutex_make

import os
import socket
import struct

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_PEEK

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_getcpu
        SYS_sched_setaffinity

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef enum:
    PROCESSORS = 4096
    MASK = 128               # words in an affinity mask: room for PROCESSORS bits even where a word has 32

_TIMEOUT_S = 1                # longest wait for a reply


cdef void channel_follow_cpu(uint32_t processor, uint32_t *current) noexcept nogil:
    cdef unsigned long mask[MASK]
    cdef unsigned int bits = 8 * sizeof(mask[0])
    if processor == current[0] or processor >= PROCESSORS:
        return
    memset(mask, 0, sizeof(mask))
    mask[processor // bits] = (<unsigned long>1) << (processor % bits)
    if syscall(SYS_sched_setaffinity, <long>0, <size_t>sizeof(mask), &mask[0]) == 0:
        current[0] = processor


@cython.final
@cython.auto_pickle(False)
cdef class HelperChannel:
    """A channel to a helper process. `pid` and `fd` come from Rights.spawn_helper(); `fd` belongs to the channel."""

    def __cinit__(self, int pid, int fd):
        self.pid, self.fd = pid, fd
        if not mutex_make(&self.mutex):
            raise MemoryError
        self.mutex_made = True
        with socket.socket(fileno=os.dup(fd)) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        if self.mutex_made:
            pthread_mutex_destroy(&self.mutex)

    def close(self):
        """Close the socket, which ends the helper. No call may be running."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1

    def check(self):
        """Raise OSError if the helper has ended."""
        cdef char byte
        cdef int passed = -1
        pthread_mutex_lock(&self.mutex)
        if self.fd >= 0 and pass_receive(self.fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK, &passed) == 0:
            self.gone = True
        pthread_mutex_unlock(&self.mutex)
        if passed >= 0:
            close(passed)
        if self.gone:
            raise OSError(ESRCH, "a helper process, needed for finding owners, has ended: restart the program")

    cdef ssize_t _receive(self, void *reply, size_t room, int flags, int *received) noexcept nogil:
        """Receive the reply to the last request, skipping late ones. Return its size, -EAGAIN or -EPIPE."""
        cdef uint32_t number
        cdef ssize_t got
        while True:
            got = pass_receive(self.fd, reply, room, flags, received)
            if got < 0 and errno == EAGAIN:
                return -EAGAIN
            if got < <ssize_t>sizeof(number):
                self.gone = True
                return -EPIPE
            memcpy(&number, reply, sizeof(number))
            if number == self.number:
                return got
            if received[0] >= 0:
                close(received[0])

    cdef ssize_t _call(self, request_head_t *request, size_t size, void *reply, size_t room, int passed,
                      int *received) noexcept nogil:
        cdef ssize_t got
        if self.fd < 0 or self.gone:
            return -EPIPE
        if self.is_late:
            got = self._receive(reply, room, MSG_DONTWAIT, received)
            if got < 0:
                return got
            if received[0] >= 0:
                close(received[0])
            self.is_late = False
        self.number += 1
        request.number = self.number
        if syscall(SYS_getcpu, &request.processor, NULL, NULL) != 0:
            request.processor = PROCESSORS
        if pass_send(self.fd, request, size, passed) != <ssize_t>size:
            self.gone = True
            return -EPIPE
        got = self._receive(reply, room, 0, received)
        self.is_late = got == -EAGAIN
        return got

    cdef ssize_t call(self, request_head_t *request, size_t size, void *reply, size_t room, int passed,
                     int *received) noexcept nogil:
        cdef ssize_t got
        received[0] = -1
        pthread_mutex_lock(&self.mutex)
        got = self._call(request, size, reply, room, passed, received)
        pthread_mutex_unlock(&self.mutex)
        return got
