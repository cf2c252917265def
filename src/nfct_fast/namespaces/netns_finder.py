"""Find network namespaces by name and by process: all of them, or those that are new."""

import contextlib
import os
import time

from nfct_fast.kernel import netns
from nfct_fast.namespaces.netns_census import NetnsCensus

_RECENT_S = 0.005  # time that each call of recent() spends on new processes
_NAMES_NS = 1_000_000_000  # longest time from the creation of a name's file, which changes the folder, to the mount


class NamespaceFinder:
    """A finder of network namespaces. One thread at a time, except for stop().

    Results are {inode: (name, path)}. Opening a path may show that it is no network namespace (yet).

    Args:
        proc: Where /proc is mounted.

    Raises:
        OSError: `proc` cannot be opened.
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
        """Return all visible namespaces; {} if stop() was called. Blocks for 3 us per process."""
        processes = self._census.all()
        return {} if processes is None else self._with_names(processes, netns.mounted(self._kept))

    def recent(self) -> dict:
        """Return the namespaces of new processes and new names. Takes a few ms at most."""
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
        """Whether recent() had no time to look at every new process, so that only all() finds the rest."""
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
