"""Fork a process that does one thing for this program, and has nothing of it but a few descriptors."""

import fcntl
import os
import signal
import socket


def spawn(kind, name, work, passed=()) -> tuple[int, int]:
    """Fork a process; return its pid and a socket connected to its own. Call while there is only one thread.

    The process ignores all signals but SIGKILL and SIGSTOP, and ends when work() does.

    Args:
        kind: socket.SOCK_STREAM or SOCK_SEQPACKET.
        name: Name of the process.
        work: Called there with the descriptor of its socket, and one for each of `passed`.
        passed: Descriptors of this process that it gets; it has no others.

    Raises OSError if it cannot be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            _be(name, work, (theirs.fileno(), *passed))
        return pid, ours.detach()


def _be(name, work, fds):
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nothing, standard)
        # First out of the way, as one may have the number that another is to get.
        fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 3 + len(fds)) for fd in fds]
        fds = [os.dup2(fd, number) for number, fd in enumerate(fds, 3)]
        os.closerange(3 + len(fds), os.sysconf("SC_OPEN_MAX"))
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
        work(*fds)
    finally:
        os._exit(0)
