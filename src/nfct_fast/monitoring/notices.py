"""Sentences for an operator, each told once, and a descriptor that says when there are some."""
import collections

from nfct_fast.kernel.wakeup import Wakeup


class Notices:
    """From any thread to any other."""

    def __init__(self):
        self._sentences = collections.deque()
        self._wakeup = Wakeup()

    def tell(self, sentence) -> None:
        """Have it told."""
        self._sentences.append(sentence)
        self._wakeup.set()

    def fileno(self) -> int:
        """Readable when there is something that was not told yet."""
        return self._wakeup.fileno()

    def take(self) -> tuple[str, ...]:
        """What was not told yet."""
        result = []
        self._wakeup.clear()
        while self._sentences:
            result.append(self._sentences.popleft())
        return tuple(result)

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        self._wakeup.close()
