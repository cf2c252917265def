"""Text that cannot control a terminal, or look like another line."""


def printable(text: str) -> str:
    """Return a text in which characters that cannot be printed are written as in a Python literal."""
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text])
