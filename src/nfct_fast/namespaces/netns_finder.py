"""Which network namespaces there are, by name and by process: all of them, and those that came lately."""
import contextlib
import os
import time

from nfct_fast.kernel import netns
from nfct_fast.namespaces.netns_census import NetnsCensus

_RECENT_S = 0.005       # of each call for processes that began lately
_NAMES_NS = 1_000_000_000       # how long after its folder has changed a name may become a namespace


class NamespaceFinder:
    """proc: where /proc is mounted. One thread at a time, but for stop(). What it finds is {inode: (name, path)}; a name may be
    of something else. OSError if it cannot be opened."""

    def __init__(self, proc="/proc"):
        self._proc, self._kept = proc, {}
        self._census = NetnsCensus(proc)
        self._kept = netns.keep_named()
        self._changed = 0

    def __del__(self):
        for fd in self._kept.values():
            os.close(fd)

    def all(self) -> dict:
        """All that can be seen; {} if stop() came before the end. Blocks for 3 us a process."""
        processes = self._census.all()
        return {} if processes is None else self._with_names(processes, netns.mounted(self._kept))

    def recent(self) -> dict:
        """Those of processes and names that came lately, in some ms at most."""
        changed = 0
        for folder in (*netns.NAMED, *self._kept.values()):
            with contextlib.suppress(OSError):
                changed = max(changed, os.stat(folder).st_mtime_ns)
        names = {}
        # The namespace comes to a name just after the file.
        if changed != self._changed or abs(time.time_ns() - changed) < _NAMES_NS:
            self._changed = changed
            names = netns.mounted(self._kept)
        return self._with_names(self._census.recent(_RECENT_S), names)

    def _with_names(self, processes, names):
        return {inode: (f"pid:{pid}", f"{self._proc}/{pid}/ns/net") for inode, pid in processes.items()} | names

    @property
    def overtaken(self) -> bool:
        """There was more than recent() could look at: only all() finds the rest."""
        return self._census.overtaken

    def stop(self) -> None:
        """Have all() return soon; from any thread."""
        self._census.stop()

    def close(self) -> None:
        """Close its descriptors; closing twice is harmless."""
        self._census.close()
        kept, self._kept = self._kept, {}
        for fd in kept.values():
            os.close(fd)
