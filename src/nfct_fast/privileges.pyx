"""Giving capabilities up, thread by thread, once everything that needs them is open. See capabilities(7).

capset(2) and prctl(2) change the calling thread alone: each thread calls drop() for itself.
"""
from libc.errno cimport EINVAL, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset

import os

cdef extern from "<linux/capability.h>" nogil:
    enum:
        _LINUX_CAPABILITY_VERSION_3
        CAP_DAC_READ_SEARCH
        CAP_NET_ADMIN
        CAP_SETPCAP
        CAP_SYS_ADMIN
        CAP_SYS_PTRACE

    struct __user_cap_header_struct:
        uint32_t version
        int pid

    struct __user_cap_data_struct:
        uint32_t effective
        uint32_t permitted
        uint32_t inheritable

cdef extern from "<sys/prctl.h>" nogil:
    enum:
        PR_CAPBSET_DROP
        PR_CAPBSET_READ
        PR_CAP_AMBIENT
        PR_CAP_AMBIENT_CLEAR_ALL
        PR_SET_NO_NEW_PRIVS

    int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_capget
        SYS_capset

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

# What reading goes on to need: the conntrack table and larger buffers; other users' /proc/PID/fd; cgroups by their id;
# entering the network namespaces of containers that start later.
KEPT = frozenset((CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN))


cdef object _error(str what):
    return OSError(errno, f"{what}: {os.strerror(errno)}")


def drop(keep=KEPT) -> None:
    """Give up, for good and in the calling thread, all capabilities but those in keep (numbers of capabilities(7)).

    What is kept is what is there of it. execve gains nothing after it (no_new_privs). Raises OSError.
    """
    cdef __user_cap_header_struct header
    cdef __user_cap_data_struct data[2]
    cdef uint32_t masks[2]
    cdef int number
    masks[0] = masks[1] = 0
    for number in keep:
        masks[number // 32] |= <uint32_t>1 << number % 32
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise _error("PR_SET_NO_NEW_PRIVS")
    memset(&header, 0, sizeof(header))
    header.version = _LINUX_CAPABILITY_VERSION_3
    if syscall(SYS_capget, &header, data) < 0:
        raise _error("capget")
    if data[0].effective >> CAP_SETPCAP & 1:
        _drop_bounding(masks)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)      # EINVAL before Linux 4.3: there are none to clear
    for number in range(2):
        data[number].effective &= masks[number]
        data[number].permitted &= masks[number]
        data[number].inheritable = 0
    if syscall(SYS_capset, &header, data) < 0:
        raise _error("capset")


cdef _drop_bounding(const uint32_t *masks):
    cdef int number = 0
    while prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if not masks[number // 32] >> number % 32 & 1 and prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            raise _error("PR_CAPBSET_DROP")
        number += 1
    if errno != EINVAL:
        raise _error("PR_CAPBSET_READ")
