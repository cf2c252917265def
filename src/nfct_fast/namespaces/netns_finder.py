"""Finds network namespaces by name and by process: all of them, or those that are new."""

import contextlib
import os
import time

from nfct_fast.kernel import netns
from nfct_fast.namespaces.netns_census import NetnsCensus

_RECENT_S = 0.005  # time for the new processes in each call of recent()
_NAMES_NS = 1_000_000_000  # a namespace is mounted at most this long after its file has changed the folder


class NamespaceFinder:
    """Finds namespaces as {inode: (name, path)}; a name may turn out to be something else.

    One thread at a time, except for stop(). OSError if `proc`, where /proc is mounted, cannot be opened.
    """

    def __init__(self, proc="/proc"):
        self._proc, self._kept = proc, {}
        self._census = NetnsCensus(proc)
        self._kept = netns.keep_named()
        self._changed = 0

    def __del__(self):
        for fd in self._kept.values():
            os.close(fd)

    def all(self) -> dict:
        """All namespaces that can be seen; {} if stop() was called. Blocks for 3 us a process."""
        processes = self._census.all()
        return {} if processes is None else self._with_names(processes, netns.mounted(self._kept))

    def recent(self) -> dict:
        """The namespaces of new processes and new names. Takes some ms at most."""
        changed = 0
        for folder in (*netns.NAMED, *self._kept.values()):
            with contextlib.suppress(OSError):
                changed = max(changed, os.stat(folder).st_mtime_ns)
        names = {}
        # ip-netns(8) makes the file first and mounts the namespace on it just afterwards.
        if changed != self._changed or abs(time.time_ns() - changed) < _NAMES_NS:
            self._changed = changed
            names = netns.mounted(self._kept)
        return self._with_names(self._census.recent(_RECENT_S), names)

    def _with_names(self, processes, names):
        return {inode: (f"pid:{pid}", f"{self._proc}/{pid}/ns/net") for inode, pid in processes.items()} | names

    @property
    def overtaken(self) -> bool:
        """Whether recent() could not look at everything, so that only all() finds the rest."""
        return self._census.overtaken

    def stop(self) -> None:
        """Make all() return early. Any thread may call this."""
        self._census.stop()

    def close(self) -> None:
        """Close the descriptors; closing twice is harmless."""
        self._census.close()
        kept, self._kept = self._kept, {}
        for fd in kept.values():
            os.close(fd)
