"""How full the conntrack table of a network namespace is."""

import contextlib
import os

from nfct_fast.kernel import netns

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
