"""Notices for an operator, each delivered once, and a descriptor that is readable when there are any."""

import collections

from nfct_fast.kernel.wakeup import Wakeup


class Notices:
    """A queue of sentences. Any thread may call any method."""

    def __init__(self):
        self._sentences = collections.deque()
        self._wakeup = Wakeup()

    def add(self, sentence) -> None:
        """Queue a notice."""
        self._sentences.append(sentence)
        self._wakeup.set()

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are notices to take."""
        return self._wakeup.fileno()

    def take(self) -> tuple[str, ...]:
        """Remove and return all queued notices."""
        result = []
        self._wakeup.clear()
        while self._sentences:
            result.append(self._sentences.popleft())
        return tuple(result)

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        self._wakeup.close()
