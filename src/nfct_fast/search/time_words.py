"""Moments in the words of journalctl(1), which systemd.time(7) describes: "yesterday", "-1h", "2026-11-24 03:12 UTC".

Without a zone a moment is in the local one. "12:30" is today's, as journalctl has it, but for around(), which looks for
something that has happened: there it is the last one that has passed.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from nfct_fast.filters.number_values import did_you_mean
from nfct_fast.search.time_error import TimeError
from nfct_fast.search.time_spans import MOST_NS, NS, span_ns

AROUND_NS = 60 * NS  # on each side, unless another span is given
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
_WORDS = ("now", *_DAYS, "ago", "left", "UTC")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DATE = re.compile(r"(?P<year>[0-9]{4}|[0-9]{2})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})")
_CLOCK = re.compile(r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<part>[0-9]{1,9}))?)?")
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hour>[0-9]{2}):?(?P<minute>[0-9]{2})?")
_EPOCH = re.compile(r"@(?P<second>[0-9]{1,10})(?:\.(?P<part>[0-9]{1,9}))?")
# RFC 3339 writes all in one word: a zone after the clock is cut off there.
_JOINED = re.compile(rf"({_DATE.pattern})T({_CLOCK.pattern})(?P<zone>Z|[+-][0-9]{{2}}:?[0-9]{{2}})?")


class _Word(str):
    """A word and the column it stands at."""

    column: int

    def __new__(cls, text, column):
        self = super().__new__(cls, text)
        self.column = column
        return self


def _cut(text):
    words = []
    for match in re.finditer(r"\S+", text):
        joined = _JOINED.fullmatch(match[0])
        if joined is None:
            words.append(_Word(match[0], match.start() + 1))
            continue
        start = match.start() + 1
        words.append(_Word(joined[1], start))
        words.append(_Word(joined[5], start + len(joined[1]) + 1))
        if joined["zone"]:
            words.append(_Word("UTC" if joined["zone"] == "Z" else joined["zone"], start + joined.start("zone")))
    return words


def _fraction(digits):
    return int(digits.ljust(9, "0")) if digits else 0


def _zone(word) -> tzinfo | None:
    """The zone that a word names; None if it names none."""
    if word.upper() in ("UTC", "Z"):
        return UTC
    if match := _OFFSET.fullmatch(word):
        offset = timedelta(hours=int(match["hour"]), minutes=int(match["minute"] or 0))
        return timezone(-offset if match["sign"] == "-" else offset) if offset < timedelta(days=1) else None
    if not word[:1].isalpha():
        return None
    try:
        return ZoneInfo(word)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError, which no word should be taken for
        return None
    except KeyError:
        return None


def _moment(year, month, day, clock, part, zone, word) -> int:
    """ns since the epoch of a date and a time of day in a zone, the local one if that is None."""
    try:
        # Of a time that comes twice, as the clock is put back, the second one: so has systemd.
        local = datetime(year, month, day, *clock, tzinfo=zone, fold=1)
        aware = local if zone is not None else local.astimezone()
        seconds = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        raise TimeError(f"there is no such time ({error}):", word, word.column) from None
    there = datetime.fromtimestamp(seconds, zone).replace(tzinfo=None)
    if there != local.replace(tzinfo=None):
        raise TimeError("a clock that is put forward skips", word, word.column)
    ns = seconds * NS + part
    if not 0 <= ns <= MOST_NS:
        raise TimeError("too far away:", word, word.column)
    return ns


class _Moment:
    """What the words of one moment say."""

    def __init__(self, text, now_ns):
        self._words = _cut(text)
        self._now = now_ns
        self._text = text
        if not self._words:
            raise TimeError("a moment such as 2026-11-24 03:12, yesterday or -1h is missing", "", 1)

    def read(self, past_only: bool) -> int:
        words = self._words
        first = words[0]
        if len(words) == 1 and first.lower() == "now":
            return self._now
        if len(words) == 1 and first.startswith("@"):
            match = _EPOCH.fullmatch(first)
            if match is None:
                raise TimeError("@ needs seconds since 1970, not", first, first.column)
            return int(match["second"]) * NS + _fraction(match["part"])
        if first[0] in "+-":
            return self._relative(self._text[first.column :], first.column, -1 if first[0] == "-" else 1)
        if words[-1].lower() in ("ago", "left"):
            before = self._text[: words[-1].column - 1]
            return self._relative(before, 0, -1 if words[-1].lower() == "ago" else 1)
        return self._absolute(words, past_only)

    def _relative(self, text, at, sign):
        ns = self._now + sign * span_ns(text, at)
        if not 0 <= ns <= MOST_NS:
            raise TimeError("too far away:", text.strip(), at + 1)
        return ns

    def _absolute(self, words, past_only):
        words = list(words)
        last = words[-1]
        zone = _zone(words.pop()) if len(words) > 1 and _zone(last) is not None else None
        today = datetime.fromtimestamp(self._now // NS, zone)
        weekday = words.pop(0) if len(words) > 1 and words[0].lower().rstrip(",") in self._weekdays() else None
        date, day_word, is_date = today.date(), words[0], True
        if match := _DATE.fullmatch(words[0]):
            year = int(match["year"])
            year += 0 if len(match["year"]) == 4 else 2000 if year < 69 else 1900
            date = (year, int(match["month"]), int(match["day"]))
        elif words[0].lower() in _DAYS:
            date += timedelta(days=_DAYS[words[0].lower()])
        else:
            is_date = False
        if not isinstance(date, tuple):
            date = (date.year, date.month, date.day)
        words = words[1:] if is_date else words
        clock, part = (0, 0, 0), 0
        if words:
            clock, part = self._clock(words.pop(0))
        if words:
            raise TimeError("unexpected", words[0], words[0].column)
        ns = _moment(*date, clock, part, zone, day_word)
        if weekday is not None and not self._is_weekday(weekday, date):
            raise TimeError("not the day of the week of that date:", weekday, weekday.column)
        if past_only and not is_date and ns > self._now:
            before = today.date() - timedelta(days=1)
            ns = _moment(before.year, before.month, before.day, clock, part, zone, day_word)
        return ns

    @staticmethod
    def _weekdays():
        return {name for day in _WEEKDAYS for name in (day, day[:3])}

    @staticmethod
    def _is_weekday(word, date):
        return _WEEKDAYS[datetime(*date).weekday()].startswith(word.lower().rstrip(","))

    @staticmethod
    def _clock(word):
        match = _CLOCK.fullmatch(word)
        if match is None:
            hint = did_you_mean(word, _WORDS)
            raise TimeError("not a date, time, span or zone:", word, word.column, hint)
        return (int(match["hour"]), int(match["minute"]), int(match["second"] or 0)), _fraction(match["part"])


def moment_ns(text: str, now_ns: int) -> int:
    """Return the moment that a text stands for, in ns since the epoch. Raises TimeError.

    now_ns: The present, by which "now", "today", "-1h" and "12:30" are meant.
    """
    return _Moment(text, now_ns).read(past_only=False)


def around_ns(text: str, now_ns: int) -> tuple[int, int]:
    """Return the first and last moment of "03:12 ±5m", "2026-11-24 03:12 +-90s" or "03:12", which is one minute wide
    on each side. A time of day alone is the last one that has passed. Raises TimeError.
    """
    match = re.search(r"±|\+/?-", text)
    centre, span = text, AROUND_NS
    if match is not None:
        centre, span = text[: match.start()], span_ns(text[match.end() :], match.end())
    at = _Moment(centre, now_ns).read(past_only=True)
    return max(0, at - span), min(MOST_NS, at + span)
