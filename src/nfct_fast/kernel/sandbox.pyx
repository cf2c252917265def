"""What a process that reads other people's bytes may still do once all is open: seccomp(2) and landlock(7). For good.

They come on top of privileges.drop(): an attacker who makes the reader run code of theirs finds no system call to start a
program, to open a file for writing or to trace another process, and no file to read but those named.
"""
from libc.errno cimport EINVAL, ENOSYS, EOPNOTSUPP, errno
from libc.stdint cimport uint32_t, uint64_t
from posix.fcntl cimport O_RDONLY, open as c_open
from posix.stat cimport S_ISDIR, struct_stat
from posix.unistd cimport close, getpid

from nfct_fast.kernel.fstatat cimport fstat
from linux_filter cimport sock_filter, sock_fprog
from procfs_calls cimport O_CLOEXEC, O_PATH, syscall

import os

cdef extern from "nfct_fast/kernel/seccomp_filter.h" nogil:
    enum:
        SANDBOX_SETNS
        SANDBOX_KILL
        SANDBOX_FILTER_MAX
        NFCT_FAST_AUDIT_ARCH
        SECCOMP_SET_MODE_FILTER
        SECCOMP_FILTER_FLAG_TSYNC
        SECCOMP_FILTER_FLAG_SPEC_ALLOW
        SYS_seccomp
        SYS_pidfd_send_signal
    int nfct_fast_sandbox_filter(sock_filter *out, int allowed, uint32_t self)

cdef extern from "nfct_fast/kernel/landlock_calls.h" nogil:
    enum:
        LANDLOCK_READ_FILE
        LANDLOCK_READ_DIR
    int nfct_fast_landlock_version()
    int nfct_fast_landlock_ruleset(int version)
    int nfct_fast_landlock_allow(int set, int parent, uint64_t access)
    int nfct_fast_landlock_restrict(int set)

cdef extern from * nogil:
    """
    #include <unwind.h>
    /* What unwinds the stack of a thread that ends by pthread_exit(3), glibc opens when that is first called, and aborts if it
     * cannot, as under the filter. So it is loaded with this module, by a reference to something in it. */
    static void *volatile nfct_fast_unwinder = (void *)_Unwind_GetIP;
    """
    void *nfct_fast_unwinder

cdef extern from "<sys/prctl.h>" nogil:
    enum: PR_SET_NO_NEW_PRIVS
    int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)


cdef object _error(str what):
    return OSError(errno, f"{what}: {os.strerror(errno)}")


cdef void _no_new_privileges() except *:
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise _error("PR_SET_NO_NEW_PRIVS")


cdef bint _has_pidfds() noexcept nogil:
    return syscall(SYS_pidfd_send_signal, <long>-1, <long>0, NULL, <long>0) == 0 or errno != ENOSYS


def restrict_calls(bint setns=False, bint thread=False) -> bool:
    """Allow the system calls that reading goes on to need, and no others, in all threads of the process and those to come.

    Others fail with EPERM. Opening is for reading only, no socket can be made, memory that is not executable stays so,
    threads can be made and what shares the memory, but no programs, and signals go to this process alone (before Linux
    5.1, which has no pidfds, also to others of its user). `setns`: network namespaces may be entered, and netlink sockets
    made. `thread`: only in the calling thread, and those that it makes. False where this machine's calls are not known
    here; OSError if the kernel refuses. Cannot be taken back.
    """
    cdef sock_filter code[SANDBOX_FILTER_MAX]
    cdef sock_fprog program
    cdef unsigned long flags = 0 if thread else SECCOMP_FILTER_FLAG_TSYNC
    cdef long rc
    if NFCT_FAST_AUDIT_ARCH == 0:
        return False
    if nfct_fast_unwinder == NULL:
        return False
    _no_new_privileges()
    program.len = nfct_fast_sandbox_filter(
        code, (SANDBOX_SETNS if setns else 0) | (0 if _has_pidfds() else SANDBOX_KILL), getpid())
    program.filter = code
    # Before 5.16 a filter would else slow all the process down, by what helps against Spectre v4.
    rc = syscall(SYS_seccomp, <long>SECCOMP_SET_MODE_FILTER, <long>(flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW), &program)
    if rc < 0 and errno == EINVAL:
        rc = syscall(SYS_seccomp, <long>SECCOMP_SET_MODE_FILTER, <long>flags, &program)
    if rc < 0:
        raise _error("seccomp")
    if rc > 0:
        raise OSError(EINVAL, f"seccomp: thread {rc} has a filter of its own")
    return True


def has_landlock() -> bool:
    """Whether restrict_files() would restrict anything."""
    return nfct_fast_landlock_version() > 0


def restrict_files(read=()) -> int:
    """Deny the calling thread, and what it starts, every file but those in or below the paths of `read`, which it may read.

    No TCP either (6.7), and no abstract socket of others (6.12). Returns the version of the kernel's Landlock, 0 where it has
    none (before 5.13, or not enabled). What is open stays open. Other processes' /proc/PID/exe, fd/* and ns/* cannot be read
    any more, whatever `read` says: Landlock takes that for tracing them. A path that is not there is passed over. OSError.
    """
    cdef int version = nfct_fast_landlock_version()
    cdef int rules, fd = -1
    cdef struct_stat st
    cdef bytes path
    if version < 0:
        if errno == ENOSYS or errno == EOPNOTSUPP:
            return 0
        raise _error("landlock")
    _no_new_privileges()
    rules = nfct_fast_landlock_ruleset(version)
    if rules < 0:
        raise _error("landlock_create_ruleset")
    try:
        for one in read:
            path = os.fsencode(one)
            fd = c_open(<const char *>path, O_PATH | O_CLOEXEC)
            if fd < 0:
                continue
            if fstat(fd, &st) < 0 or nfct_fast_landlock_allow(rules, fd, LANDLOCK_READ_FILE | (
                    LANDLOCK_READ_DIR if S_ISDIR(st.st_mode) else 0)) < 0:
                raise _error(f"landlock: {os.fsdecode(path)}")
            close(fd)
            fd = -1
        if nfct_fast_landlock_restrict(rules) < 0:
            raise _error("landlock_restrict_self")
    finally:
        if fd >= 0:
            close(fd)
        close(rules)
    return version
