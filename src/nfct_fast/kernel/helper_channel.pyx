"""Questions to a process of the program's own, which has rights that the program gave up, and its answers.

It runs on the processor of who waits for it: to wake it on another one that is idle costs more than most of what it is
asked. Who may signal it can stop it: an answer is waited for a second at most, and as long as it does not come no other
request is asked.
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
    MASK = 128               # words of so many bits, at least

_TIMEOUT_S = 1                # seconds


cdef void channel_follow_cpu(uint32_t processor, uint32_t *here) noexcept nogil:
    cdef unsigned long mask[MASK]
    cdef unsigned int bits = 8 * sizeof(mask[0])
    if processor == here[0] or processor >= PROCESSORS:
        return
    memset(mask, 0, sizeof(mask))
    mask[processor // bits] = (<unsigned long>1) << (processor % bits)
    if syscall(SYS_sched_setaffinity, <long>0, <size_t>sizeof(mask), &mask[0]) == 0:
        here[0] = processor


@cython.final
@cython.auto_pickle(False)
cdef class HelperChannel:
    """pid, fd: what Rights.spawn_helper has returned; the descriptor is its own from then on. OSError."""

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
        """The process ends by that. No request may be under way."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1

    def check(self):
        """OSError if there is no process any more."""
        cdef char byte
        cdef int passed = -1
        pthread_mutex_lock(&self.mutex)
        if self.fd >= 0 and pass_receive(self.fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK, &passed) == 0:
            self.gone = True
        pthread_mutex_unlock(&self.mutex)
        if passed >= 0:
            close(passed)
        if self.gone:
            raise OSError(ESRCH, "a process of its own has ended, without which owners cannot be found")

    cdef ssize_t _receive(self, void *answer, size_t room, int flags, int *received) noexcept nogil:
        """The answer to the last request: its size, -EAGAIN or -EPIPE."""
        cdef uint32_t number
        cdef ssize_t got
        while True:
            got = pass_receive(self.fd, answer, room, flags, received)
            if got < 0 and errno == EAGAIN:
                return -EAGAIN
            if got < <ssize_t>sizeof(number):
                self.gone = True
                return -EPIPE
            memcpy(&number, answer, sizeof(number))
            if number == self.number:
                return got
            if received[0] >= 0:
                close(received[0])

    cdef ssize_t _call(self, request_head_t *request, size_t size, void *answer, size_t room, int passed,
                      int *received) noexcept nogil:
        cdef ssize_t got
        if self.fd < 0 or self.gone:
            return -EPIPE
        if self.is_late:
            got = self._receive(answer, room, MSG_DONTWAIT, received)
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
        got = self._receive(answer, room, 0, received)
        self.is_late = got == -EAGAIN
        return got

    cdef ssize_t call(self, request_head_t *request, size_t size, void *answer, size_t room, int passed,
                     int *received) noexcept nogil:
        cdef ssize_t got
        received[0] = -1
        pthread_mutex_lock(&self.mutex)
        got = self._call(request, size, answer, room, passed, received)
        pthread_mutex_unlock(&self.mutex)
        return got
