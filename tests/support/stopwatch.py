"""How long something took, without the time for which the machine let nobody work."""

import threading
import time

_NAP_S = 0.005


class Stopwatch:
    """A context manager: `seconds` is how long its block took, less the time for which others had the machine.

    `elapsed` is the same without that deduction.

    A program ends "within a second" if it gets a processor. That it did not is seen by how long tasks waited for one
    (/proc/pressure/cpu, where the kernel has it), or by naps of this process that took longer than they should, as when
    a hypervisor runs something else. A program that hangs causes neither.
    """

    def __enter__(self):
        self._nap, self._ended = (0.0, time.monotonic()), threading.Event()
        self._napper = threading.Thread(target=self._take_naps)
        self._waited_before = _waited_for_processors()
        self._began = time.monotonic()
        self._napper.start()
        return self

    def __exit__(self, *exception):
        self.elapsed, self.seconds = time.monotonic() - self._began, self.clock() - self._began
        self._ended.set()
        self._napper.join()

    def clock(self):
        """The monotonic clock, in seconds, but for that time."""
        waited = _waited_for_processors() - self._waited_before
        return time.monotonic() - max(self._overslept(), waited)

    def _take_naps(self):
        while not self._ended.is_set():
            time.sleep(_NAP_S)
            self._nap = self._overslept(), time.monotonic()

    def _overslept(self):
        overslept, lay_down = self._nap
        return overslept + max(0.0, time.monotonic() - lay_down - 2 * _NAP_S)


def _waited_for_processors():
    """Seconds, so far, in which some task was ready to run and had no processor."""
    try:
        with open("/proc/pressure/cpu") as pressure:
            return int(pressure.readline().rpartition("total=")[2]) / 1e6
    except OSError:  # not in this kernel, or not switched on
        return 0.0
