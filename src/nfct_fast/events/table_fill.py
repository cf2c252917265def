"""How full the conntrack table of a network namespace is. When it is full, the kernel drops new connections."""

import contextlib
import os

from nfct_fast.kernel import netns
from nfct_fast.text.problem import Problem

LEVELS = (80, 95)  # percentages of the table in use at which an operator is told
_PATH = "/proc/sys/net/netfilter/nf_conntrack_"


def _open(path):
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


class TableFill:
    """The fill of the table of the calling thread's network namespace, whose files it keeps open."""

    def __init__(self):
        self._files = [_open(_PATH + "count"), _open(_PATH + "max")]

    def usage(self) -> tuple[int, int] | None:
        """Return the number of entries and its limit; None if they cannot be read. Any thread may call this."""
        try:
            count, most = (int(os.pread(fd, 32, 0)) for fd in self._files)
            return count, most
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Close the files. Closing twice is harmless."""
        files, self._files = self._files, [-1, -1]
        for fd in files:
            if fd >= 0:
                os.close(fd)


def open_table_fill(spec) -> TableFill:
    """Return the TableFill of a namespace, as netns.resolve() finds it; None: the calling thread's. OSError."""
    if spec is None:
        return TableFill()
    with contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(space) for space in netns.resolve(spec)]
        stack.enter_context(spaces[0].entered())
        return TableFill()


def percentage(count: int, most: int) -> int:
    """Return how much of the table is in use, in per cent; 0 if it has no limit."""
    return 100 * count // most if most else 0


def full_table(count: int, most: int) -> Problem:
    """Return what an operator is told when one of LEVELS is reached."""
    return Problem(
        f"the conntrack table is {percentage(count, most)} % full, {count} of {most} entries: when it is full, the "
        "kernel drops new connections",
        "Raise the limit, which holds for all network namespaces, with",
        f"sysctl net.netfilter.nf_conntrack_max={2 * most}",
    )
