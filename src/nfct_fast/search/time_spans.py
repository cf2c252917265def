"""Spans of time in the words of systemd.time(7): "90", "5min", "2h 30min", "1 week"."""

import re

from nfct_fast.search.time_error import TimeError

NS = 1_000_000_000
# A month and a year are systemd's averages.
_UNITS = {
    **dict.fromkeys(("usec", "us", "µs", "μs"), NS // 1_000_000),
    **dict.fromkeys(("msec", "ms"), NS // 1000),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), NS),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60 * NS),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600 * NS),
    **dict.fromkeys(("d", "day", "days"), 86400 * NS),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400 * NS),
    **dict.fromkeys(("M", "month", "months"), 2629800 * NS),
    **dict.fromkeys(("y", "year", "years"), 31557600 * NS),
}
MOST_NS = 1 << 62  # from the epoch to the year 2116
_PART = re.compile(r"\s*(?P<number>[0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(?P<unit>[A-Za-zµμ]*)")


def span_ns(text: str, at: int = 0) -> int:
    """Return the ns that a span stands for, 0 or more. A number alone is of seconds.

    at: Where in what the user wrote the span begins, for errors.

    Raises TimeError.
    """
    total, place = 0, 0
    while text[place:].strip():
        match = _PART.match(text, place)
        word = text[place:].split()[0]
        column = at + place + len(text[place:]) - len(text[place:].lstrip()) + 1
        if match is None:
            raise TimeError("a span such as 5min or 2h 30min was expected, not", word, column)
        if match["unit"] not in _UNITS:
            raise TimeError("unknown unit", match["unit"], at + match.start("unit") + 1)
        # In whole numbers: a float has too few digits for ns.
        whole, _, part = match["number"].partition(".")
        unit = _UNITS[match["unit"]]
        total += int(whole) * unit + (int(part) * unit // 10 ** len(part) if part else 0)
        if total > MOST_NS:
            raise TimeError("too long:", word, column)
        place = match.end()
    if not place:
        raise TimeError("a span such as 5min is missing", "", at + 1)
    return total
