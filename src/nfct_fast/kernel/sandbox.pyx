"""Restrict, for good, a process that reads untrusted input, once everything is open: seccomp(2) and landlock(7).

This adds to privileges.drop(): an attacker who makes the reader execute code of theirs has no system call with which to
start a program, open a file for writing or trace another process, and can read no files except those that were allowed.
"""
from libc.errno cimport EINVAL, ENOSYS, EOPNOTSUPP, errno
from libc.stdint cimport uint32_t, uint64_t
from posix.fcntl cimport open as c_open
from posix.stat cimport S_ISDIR, struct_stat
from posix.unistd cimport close, getpid

from nfct_fast.kernel.fstatat cimport fstat
from linux_filter cimport sock_filter, sock_fprog
from procfs_calls cimport O_CLOEXEC, O_PATH, syscall

from nfct_fast.kernel.os_error cimport os_error
from nfct_fast.kernel.privileges cimport no_new_privileges

import os

cdef extern from "nfct_fast/kernel/seccomp_filter.h" nogil:
    enum:
        SANDBOX_SETNS
        SANDBOX_KILL
        SANDBOX_TERMINAL
        SANDBOX_ACCEPT
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
    /* glibc loads libgcc_s, which unwinds a thread's stack, at the first pthread_exit(3), and aborts if the filter does
     * not let it. This reference has it loaded together with this module. */
    static void *volatile nfct_fast_unwinder = (void *)_Unwind_GetIP;
    """
    void *nfct_fast_unwinder

cdef bint _has_pidfds() noexcept nogil:
    return syscall(SYS_pidfd_send_signal, <long>-1, <long>0, NULL, <long>0) == 0 or errno != ENOSYS


def restrict_calls(bint setns=False, bint thread=False, bint accept=False, bint terminal=False) -> bool:
    """Allow only the system calls that reading still needs, in all threads of the process, for good.

    All others fail with EPERM. Files can be opened only for reading; no socket can be made; no memory can be made
    executable; threads and processes that share the memory can be started, but no programs; and signals can be sent
    only to this process (before Linux 5.1, which has no pidfds, also to others of its user).

    Args:
        setns: Also allow entering network namespaces and making netlink sockets.
        thread: Restrict only the calling thread, and those that it starts.
        terminal: Also allow setting the modes of terminals that are open.
        accept: Also allow accepting connections on a socket that listens; then no socket can be connected or bound.

    Returns:
        False if there is no filter for this machine's architecture.

    Raises:
        OSError: The kernel refuses.
    """
    cdef sock_filter code[SANDBOX_FILTER_MAX]
    cdef sock_fprog program
    cdef unsigned long flags = 0 if thread else SECCOMP_FILTER_FLAG_TSYNC
    cdef long rc
    if NFCT_FAST_AUDIT_ARCH == 0:
        return False
    if nfct_fast_unwinder == NULL:
        return False
    no_new_privileges()
    program.len = nfct_fast_sandbox_filter(
        code, (SANDBOX_SETNS if setns else 0) | (0 if _has_pidfds() else SANDBOX_KILL)
        | (SANDBOX_ACCEPT if accept else 0) | (SANDBOX_TERMINAL if terminal else 0), getpid())
    program.filter = code
    # Without SPEC_ALLOW, kernels before 5.16 enable the Spectre v4 mitigation in a filtered process, which slows it.
    rc = syscall(SYS_seccomp, <long>SECCOMP_SET_MODE_FILTER, <long>(flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW), &program)
    if rc < 0 and errno == EINVAL:
        rc = syscall(SYS_seccomp, <long>SECCOMP_SET_MODE_FILTER, <long>flags, &program)
    if rc < 0:
        raise os_error("seccomp")
    if rc > 0:
        raise OSError(EINVAL, f"seccomp: thread {rc} already has a filter of its own")
    return True


def has_landlock() -> bool:
    """Whether the kernel has Landlock, without which restrict_files() restricts nothing."""
    return nfct_fast_landlock_version() > 0


def restrict_files(read=()) -> int:
    """Deny the calling thread, and what it starts, access to files, except for reading at or below the paths in `read`.

    This also denies TCP (since 6.7) and other processes' abstract sockets (since 6.12). Open descriptors stay usable.
    Other processes' /proc/PID/exe, fd/* and ns/* can no longer be read, whatever `read` says: Landlock counts that as
    tracing. A path that does not exist is skipped.

    Returns:
        The version of the kernel's Landlock ABI; 0 if it has no Landlock (before 5.13, or not enabled).

    Raises:
        OSError: The kernel refuses.
    """
    cdef int version = nfct_fast_landlock_version()
    cdef int rules, fd = -1
    cdef struct_stat st
    cdef bytes path
    if version < 0:
        if errno == ENOSYS or errno == EOPNOTSUPP:
            return 0
        raise os_error("landlock")
    rules = nfct_fast_landlock_ruleset(version)
    if rules < 0:
        raise os_error("landlock_create_ruleset")
    try:
        for one in read:
            path = os.fsencode(one)
            fd = c_open(<const char *>path, O_PATH | O_CLOEXEC)
            if fd < 0:
                continue
            if fstat(fd, &st) < 0 or nfct_fast_landlock_allow(rules, fd, LANDLOCK_READ_FILE | (
                    LANDLOCK_READ_DIR if S_ISDIR(st.st_mode) else 0)) < 0:
                raise os_error(f"landlock: {os.fsdecode(path)}")
            close(fd)
            fd = -1
        no_new_privileges()    # only now: if an earlier step fails, nothing has changed
        if nfct_fast_landlock_restrict(rules) < 0:
            raise os_error("landlock_restrict_self")
    finally:
        if fd >= 0:
            close(fd)
        close(rules)
    return version
