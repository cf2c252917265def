"""What is wrong with a filter, and where."""

_SHOWN = 30  # characters of a word that a message repeats
_AROUND = 40  # characters shown on each side of the place


class FilterError(ValueError):
    """A filter that cannot be used.

    str() is one line, which names the word and its column; a note, which tracebacks print, shows the place.

    Attributes:
        column: Of the word, counted from 1.
    """

    def __init__(self, message: str, text: str, column: int) -> None:
        super().__init__(f"filter: {message}")
        self.column = column
        self.add_note(_pointed_out(text, column))


def quote(word: str) -> str:
    """Return a word for a message: in quotes, escaped, and not too long."""
    return repr(word if len(word) <= _SHOWN else word[:_SHOWN] + "...")


def _pointed_out(text, column):
    begin = max(0, column - 1 - _AROUND)
    part = text[begin : column - 1 + _AROUND]
    shown = "".join(character if character.isprintable() else "?" for character in part)
    return f"  {shown}\n  {'^':>{column - begin}}"
