"""Whole numbers among the arguments."""


def whole_number(text: str, least: int, most: int) -> int | None:
    """Return the number that decimal digits, and nothing else, stand for; None if it is none, or not in this range."""
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
        return None
    return int(text)
