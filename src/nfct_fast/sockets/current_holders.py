"""Find all processes that hold a socket now, by a walk over the open files of the host."""

import os

from nfct_fast.processes.process_object import Process
from nfct_fast.processes.process_reader import ProcessReader
from nfct_fast.sockets.fd_scanner import FdScanner


def find_holders(inode: int | None, proc: str | os.PathLike[str] = "/proc") -> tuple[Process, ...]:
    """Search /proc for every process that holds a socket now.

    Blocks for about 4 us per open file of the host. Needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH for the processes of
    other users.

    Args:
        inode: The socket's inode (`Owner.inode`), int; None for an unknown socket.
        proc: Where /proc is mounted.

    Returns:
        A tuple of `Process`, the oldest first but pid 1 and systemd last; empty if no process holds the socket.

    Raises:
        PermissionError: No holder was found, but some processes could not be inspected.
        OSError: /proc cannot be read.
    """
    if not inode:
        return ()
    reader = ProcessReader(proc)
    found = [reader.process(pid) for pid, _ in FdScanner(proc).all_holders(inode)]
    return tuple(process for process in found if process is not None)
