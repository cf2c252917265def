"""What is wrong with a moment that somebody wrote, and where."""

_SHOWN = 40  # characters of a word that a message repeats


class TimeError(ValueError):
    """A moment, or a span, that cannot be understood. str() is one line, which names the word and its column.

    Attributes:
        column: Of the word, counted from 1.
    """

    def __init__(self, what: str, word: str, column: int, hint: str = "") -> None:
        shown = f" {word[:_SHOWN] + '...' if len(word) > _SHOWN else word!r}" if word else ""
        super().__init__(f"time: {what}{shown} at column {column}{hint}")
        self.column = column
