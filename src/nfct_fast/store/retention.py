"""How much a store keeps: whole files are removed, the oldest first, never one that is being written."""

import contextlib
import os
import time

from nfct_fast.store.hour_file import ENDS, remove
from nfct_fast.store.schema import store_files

DAYS = 30
SIZE = 10 << 30


class Retention:
    """The limits of one store.

    Args:
        directory: Its directory.
        days: How long a record is kept; the last file of it goes up to an hour later.
        size: Bytes of all files together.
    """

    def __init__(self, directory, days=DAYS, size=SIZE):
        self._directory, self._days, self._size = directory, days, size
        self._began = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)

    def _hour(self):
        """The hour now; if the clock was set forward by more than an hour since the start, as it was going before.

        Otherwise a clock that is wrong for a moment, by years, would have everything removed.
        """
        began, since = self._began
        going = began + time.clock_gettime(time.CLOCK_BOOTTIME) - since
        return int(min(time.time(), going + 3600) // 3600)

    def _bytes(self, path):
        total = 0
        for end in ENDS:
            with contextlib.suppress(OSError):
                status = os.stat(path + end, follow_symlinks=False)
                total += max(status.st_size, status.st_blocks * 512)
        return total

    def _damaged(self):
        return sorted(
            os.path.join(self._directory, name)
            for name in os.listdir(self._directory)
            if name.startswith("flows-") and name.endswith(".sqlite.damaged")
        )

    def enforce(self, claims) -> int:
        """Remove what is beyond the limits; return how many files. OSError if the directory cannot be read.

        claims: The Claims of the store: what is in use stays.
        """
        files = store_files(self._directory)
        oldest = self._hour() - 24 * self._days
        # What was damaged was renamed; it goes before all others.
        sizes = [(path, None, self._bytes(path)) for path in self._damaged()]
        sizes += [(file.path, file.hour, self._bytes(file.path)) for file in files]
        total = sum(size for _, _, size in sizes)
        removed = 0
        for path, hour, size in sizes:
            if path in claims or total <= self._size and (hour is None or hour >= oldest):
                continue
            remove(path)
            total -= size
            removed += 1
        return removed
