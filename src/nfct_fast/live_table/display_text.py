"""Text for a terminal: nothing in it can move the cursor or change what stands beside it, and its width is known."""

import unicodedata

# Controls, formats (bidirectional, invisible), surrogates, private and unassigned ones; separators; and combining
# marks, which a terminal may draw over what stands before them.
_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me", "Mc"}
_UNITS = "KMGTPE"


def shown(text: str) -> str:
    """The text as it may be written to a terminal: on one line, in characters that take one or two columns each."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join([_shown(character) for character in text])


def _shown(character):
    if character == "\\":
        return "\\\\"
    if character == " " or unicodedata.category(character) not in _ESCAPED:
        return character
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def plain(text: str) -> str:
    """The same for a terminal that has no more than ASCII."""
    return text if text.isascii() else text.encode("ascii", "backslashreplace").decode("ascii")


def width(text: str) -> int:
    """How many columns a shown() text takes."""
    if text.isascii():
        return len(text)
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def fitted(text: str, columns: int, right: bool = False) -> str:
    """A shown() text, cut or filled up to exactly so many columns; what is cut ends in a tilde."""
    if columns <= 0:
        return ""
    if width(text) > columns:
        text = _cut(text, columns - 1) + "~"
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks


def _cut(text, columns):
    if text.isascii():
        return text[:columns]
    taken = 0
    for at, character in enumerate(text):
        taken += 1 + (unicodedata.east_asian_width(character) in "WF")
        if taken > columns:
            return text[:at]
    return text


def amount(number: float) -> str:
    """A number of bytes or flows in at most six columns: 0, 7.3, 812, 1.2K, 34.0M."""
    if number < 1000:
        return f"{number:.0f}" if number >= 9.95 or number == int(number) else f"{number:.1f}"
    for unit in _UNITS:
        number /= 1000
        if number < 999.95:
            return f"{number:.1f}{unit}"
    return f"{number:.1e}"
