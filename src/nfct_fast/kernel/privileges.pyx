"""Give up capabilities and the user, thread by thread, once everything that needs them is open. See capabilities(7).

capset(2), prctl(2) and the system call setresuid(2) change only the calling thread, so each thread has to call drop()
for itself. glibc's setresuid() is not used: it makes all threads change their user, and aborts the process if one of
them has already given up the capability for that.
"""
from libc.errno cimport EINVAL, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset

from nfct_fast.kernel.os_error cimport os_error


cdef extern from "<linux/capability.h>" nogil:
    enum:
        _LINUX_CAPABILITY_VERSION_3
        CAP_DAC_OVERRIDE
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
    #ifdef SYS_setresuid32      /* on this machine SYS_setresuid takes ids of 16 bits */
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

CAPABILITIES = {"dac_override": CAP_DAC_OVERRIDE, "dac_read_search": CAP_DAC_READ_SEARCH, "net_admin": CAP_NET_ADMIN,
                "sys_admin": CAP_SYS_ADMIN, "sys_ptrace": CAP_SYS_PTRACE}
# The capabilities that reading still needs: net_admin for the conntrack table and larger buffers, sys_ptrace for other
# users' /proc/PID/fd, dac_read_search to open cgroups by id, sys_admin to enter the network namespaces of containers
# that start later.
KEPT = ("dac_read_search", "net_admin", "sys_admin", "sys_ptrace")


def become(uid, gid) -> None:
    """Set the ids of the calling thread and clear its supplementary groups. Its capabilities stay.

    Needs CAP_SETUID and CAP_SETGID. OSError.
    """
    cdef long user = uid, group = gid
    cdef uint32_t kept[2]
    cdef __user_cap_header_struct header
    cdef __user_cap_data_struct data[2]
    _get(&header, data)
    kept[0], kept[1] = data[0].effective, data[1].effective
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 or syscall(NFCT_SETGROUPS, <long>0, NULL) < 0
            or syscall(NFCT_SETRESGID, group, group, group) < 0 or syscall(NFCT_SETRESUID, user, user, user) < 0):
        raise os_error(f"cannot become user {uid}, group {gid}")
    _get(&header, data)
    data[0].effective, data[1].effective = kept[0] & data[0].permitted, kept[1] & data[1].permitted
    if syscall(SYS_capset, &header, data) < 0:
        raise os_error("capset")


def hide() -> None:
    """Let only root trace the process, read its memory, or get a core dump of it. OSError.

    Call it after become(), which may undo it.
    """
    if prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0:
        raise os_error("PR_SET_DUMPABLE")


cdef _get(__user_cap_header_struct *header, __user_cap_data_struct *data):
    memset(header, 0, sizeof(header[0]))
    header.version = _LINUX_CAPABILITY_VERSION_3
    if syscall(SYS_capget, header, data) < 0:
        raise os_error("capget")


cdef int no_new_privileges() except -1:
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise os_error("PR_SET_NO_NEW_PRIVS")
    return 0


def drop(keep=KEPT) -> None:
    """Give up for good, in the calling thread, all capabilities except those in `keep`.

    Also sets no_new_privs, so that execve gains none back. OSError.

    Args:
        keep: Names from CAPABILITIES. Keeping one that the thread does not have does not give it that.
    """
    cdef __user_cap_header_struct header
    cdef __user_cap_data_struct data[2]
    cdef uint32_t masks[2]
    cdef int number
    masks[0] = masks[1] = 0
    for name in keep:
        number = CAPABILITIES[name]
        masks[number // 32] |= <uint32_t>1 << number % 32
    no_new_privileges()
    _get(&header, data)
    if data[0].effective >> CAP_SETPCAP & 1:
        _drop_bounding(masks)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)      # EINVAL before Linux 4.3, which has none
    for number in range(2):
        data[number].effective &= masks[number]
        data[number].permitted &= masks[number]
        data[number].inheritable = 0
    if syscall(SYS_capset, &header, data) < 0:
        raise os_error("capset")


cdef _drop_bounding(const uint32_t *masks):
    cdef int number = 0
    while prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if not masks[number // 32] >> number % 32 & 1 and prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            raise os_error("PR_CAPBSET_DROP")
        number += 1
    if errno != EINVAL:
        raise os_error("PR_CAPBSET_READ")
