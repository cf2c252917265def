"""Giving capabilities and user up, thread by thread, once everything that needs them is open. See capabilities(7).

capset(2), prctl(2) and, asked of the kernel itself, setresuid(2) change the calling thread alone: each thread calls
drop() for itself. glibc's setresuid() has all threads do it, of which some may have given up the right to already, and
aborts then.
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
        PR_SET_DUMPABLE
        PR_SET_KEEPCAPS
        PR_SET_NO_NEW_PRIVS

    int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)

cdef extern from "<sys/syscall.h>" nogil:
    """
    #ifdef SYS_setresuid32      /* the other ones have ids of 16 bits there */
    enum { NFCT_SETGROUPS = SYS_setgroups32, NFCT_SETRESGID = SYS_setresgid32, NFCT_SETRESUID = SYS_setresuid32 };
    #else
    enum { NFCT_SETGROUPS = SYS_setgroups, NFCT_SETRESGID = SYS_setresgid, NFCT_SETRESUID = SYS_setresuid };
    #endif
    """
    enum:
        SYS_capget
        SYS_capset
        NFCT_SETGROUPS
        NFCT_SETRESGID
        NFCT_SETRESUID

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

CAPABILITIES = {"dac_read_search": CAP_DAC_READ_SEARCH, "net_admin": CAP_NET_ADMIN, "sys_admin": CAP_SYS_ADMIN,
                "sys_ptrace": CAP_SYS_PTRACE}
# What reading goes on to need: the conntrack table and larger buffers; other users' /proc/PID/fd; cgroups by their id;
# entering the network namespaces of containers that start later.
KEPT = tuple(CAPABILITIES)


cdef object _error(str what):
    return OSError(errno, f"{what}: {os.strerror(errno)}")


def become(uid, gid) -> None:
    """Give the calling thread these ids and no further groups; its capabilities stay. Needs CAP_SETUID and CAP_SETGID;
    OSError."""
    cdef long user = uid, group = gid
    cdef uint32_t kept[2]
    cdef __user_cap_header_struct header
    cdef __user_cap_data_struct data[2]
    _get(&header, data)
    kept[0], kept[1] = data[0].effective, data[1].effective
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 or syscall(NFCT_SETGROUPS, <long>0, NULL) < 0
            or syscall(NFCT_SETRESGID, group, group, group) < 0 or syscall(NFCT_SETRESUID, user, user, user) < 0):
        raise _error(f"cannot become user {uid}, group {gid}")
    _get(&header, data)
    data[0].effective, data[1].effective = kept[0] & data[0].permitted, kept[1] & data[1].permitted
    if syscall(SYS_capset, &header, data) < 0:
        raise _error("capset")


def hide() -> None:
    """Let nobody but root trace the process, read its memory, or get it as a core dump. After become(), which may undo it.
    OSError."""
    if prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0:
        raise _error("PR_SET_DUMPABLE")


cdef _get(__user_cap_header_struct *header, __user_cap_data_struct *data):
    memset(header, 0, sizeof(header[0]))
    header.version = _LINUX_CAPABILITY_VERSION_3
    if syscall(SYS_capget, header, data) < 0:
        raise _error("capget")


def drop(keep=KEPT) -> None:
    """Give up, for good and in the calling thread, all capabilities but those in keep (names in CAPABILITIES).

    What is kept is what is there of it. execve gains nothing after it (no_new_privs). Raises OSError.
    """
    cdef __user_cap_header_struct header
    cdef __user_cap_data_struct data[2]
    cdef uint32_t masks[2]
    cdef int number
    masks[0] = masks[1] = 0
    for name in keep:
        number = CAPABILITIES[name]
        masks[number // 32] |= <uint32_t>1 << number % 32
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise _error("PR_SET_NO_NEW_PRIVS")
    _get(&header, data)
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
