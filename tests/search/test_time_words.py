"""Moments as journalctl takes them; systemd-analyze(1), where it is there, is asked for its opinion."""

import os
import re
import shutil
import subprocess
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfct_fast.search.time_error import TimeError
from nfct_fast.search.time_spans import span_ns
from nfct_fast.search.time_words import around_ns, moment_ns

NS = 1_000_000_000


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def local(*parts):
    return int(datetime(*parts).timestamp()) * NS


def now():
    return local(2026, 11, 27, 20, 30, 15) + 500_000_000


MOMENTS = {
    "now": lambda: now(),
    "today": lambda: local(2026, 11, 27),
    "yesterday": lambda: local(2026, 11, 26),
    "tomorrow": lambda: local(2026, 11, 28),
    "yesterday 03:12": lambda: local(2026, 11, 26, 3, 12),
    "03:12": lambda: local(2026, 11, 27, 3, 12),
    "23:12:01": lambda: local(2026, 11, 27, 23, 12, 1),  # today, though it has not come
    "2026-11-24": lambda: local(2026, 11, 24),
    "2026-11-24 03:12": lambda: local(2026, 11, 24, 3, 12),
    "26-11-24 3:12:09": lambda: local(2026, 11, 24, 3, 12, 9),
    "2026-11-24 03:12:00.25": lambda: local(2026, 11, 24, 3, 12) + NS // 4,
    "Tue 2026-11-24 03:12": lambda: local(2026, 11, 24, 3, 12),
    "2026-11-24T03:12:00": lambda: local(2026, 11, 24, 3, 12),
    "2026-11-24 03:12 UTC": lambda: local(2026, 11, 24, 4, 12),
    "2026-11-24T03:12:00Z": lambda: local(2026, 11, 24, 4, 12),
    "2026-11-24T03:12:00+01:00": lambda: local(2026, 11, 24, 3, 12),
    "2026-11-24 03:12 America/New_York": lambda: local(2026, 11, 24, 9, 12),
    "today UTC": lambda: local(2026, 11, 27, 1),
    "2026-10-25 02:30": lambda: local(2026, 10, 25, 2, 30) + 3600 * NS,  # comes twice: the second one
    "-1h": lambda: now() - 3600 * NS,
    "+5min": lambda: now() + 300 * NS,
    "- 1h 30min": lambda: now() - 5400 * NS,
    "2 hours ago": lambda: now() - 7200 * NS,
    "1.5 s ago": lambda: now() - 3 * NS // 2,
    "90 ago": lambda: now() - 90 * NS,
    "@1700000000": lambda: 1_700_000_000 * NS,
    "@1700000000.123456789": lambda: 1_700_000_000_123_456_789,
}


@pytest.mark.parametrize("text", MOMENTS)
def test_a_moment(text):
    assert moment_ns(text, now()) == MOMENTS[text]()


# Of all versions of systemd; later ones know the rest, too.
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze to compare with")
@pytest.mark.parametrize("text", [text for text in MOMENTS if not re.search(r"[.T/]|day 0|^- |90|now|^[-+]", text)])
def test_systemd_agrees(text):
    shown = subprocess.run(
        ["systemd-analyze", "timestamp", text], capture_output=True, text=True, env=os.environ | {"TZ": "Europe/Berlin"}
    )
    assert shown.returncode == 0, shown.stderr
    epoch = int(re.search(r"UNIX seconds: @(\d+)", shown.stdout)[1])
    assert abs(moment_ns(text, time.time_ns()) // NS - epoch) <= 2


WRONG = {
    "": "missing at column 1",
    "yesterdya": "'yesterdya' at column 1 (did you mean yesterday?)",
    "2026-11-24 nine": "'nine' at column 12",
    "2026-13-01": "'2026-13-01' at column 1",
    "2026-11-24 25:00": "at column 1",
    "2026-11-24 03:12 03:13": "'03:13' at column 18",
    "2026-11-24 03:12 Mars/Phobos": "'Mars/Phobos' at column 18",
    "2026-11-24 03:12 ../../etc/passwd": "at column 18",
    "Mon 2026-11-24": "'Mon' at column 1",
    "2026-03-29 02:30": "a clock that is put forward skips",
    "-1x": "unknown unit 'x' at column 3",
    "-": "missing",
    "2 fortnights ago": "'fortnights' at column 3",
    "99999999999 years ago": "too long",
    "9999-01-01": "too far away",
    "1960-01-01": "too far away",
    "@x": "at column 1",
    "1": "'1' at column 1",
    "\x1b[31m": r"'\x1b[31m' at column 1",
}


@pytest.mark.parametrize("text", WRONG)
def test_an_error_says_where(text):
    with pytest.raises(TimeError) as caught:
        moment_ns(text, now())
    assert WRONG[text] in str(caught.value) and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("between", [" ±5m", "±5min", " +-5m", " +/- 300", " ± 5 m"])
def test_around(between):
    centre = local(2026, 11, 27, 3, 12)
    assert around_ns(f"03:12{between}", now()) == (centre - 300 * NS, centre + 300 * NS)


def test_around_is_a_minute_wide_and_of_the_last_time_that_passed():
    centre = local(2026, 11, 26, 22, 0)
    assert around_ns("22:00", now()) == (centre - 60 * NS, centre + 60 * NS)
    assert around_ns("2026-11-24 22:00", now())[0] == local(2026, 11, 24, 21, 59)
    with pytest.raises(TimeError, match="'x' at column 8"):
        around_ns("03:12 ±x", now())


@pytest.mark.parametrize(
    ("text", "ns"),
    [("90", 90 * NS), ("2h30min", 9000 * NS), ("1.5s", 3 * NS // 2), ("100ms", NS // 10), ("1w 1d", 691200 * NS)],
)
def test_a_span(text, ns):
    assert span_ns(text) == ns


@given(st.text(max_size=40) | st.text("0123456789:- @.+±agoutcymdT/", max_size=30))
def test_whatever_is_written_is_a_moment_or_an_error(text):
    for read in (moment_ns, around_ns):
        try:
            read(text, now())
        except TimeError as error:
            assert 1 <= error.column <= len(text) + 1
