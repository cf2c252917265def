"""What is too old or too much goes as whole files, the oldest first, and never what is being written."""

import os
import time

import pytest

from nfct_fast.store.hour_file import Claims
from nfct_fast.store.retention import Retention
from nfct_fast.store.schema import file_name

NOW = int(time.time() // 3600)
SIZE = 64 << 10


@pytest.fixture
def files(tmp_path):
    """A function that makes files, some hours old each."""

    def made(*ages):
        paths = []
        for age in ages:
            path = tmp_path / file_name(NOW - age, 0)
            path.write_bytes(b"x" * SIZE)
            paths.append(path)
        return paths

    return made


def test_age(tmp_path, files):
    old, young = files(24 * 3 + 2, 24 * 3 - 2)
    beside = tmp_path / f"{old.name}-wal"
    beside.write_bytes(b"x")
    (tmp_path / "notes.sqlite").write_text("of somebody else")
    assert Retention(str(tmp_path), 3, 1 << 30).enforce(Claims()) == 1
    assert sorted(os.listdir(tmp_path)) == sorted([young.name, "notes.sqlite"])


def test_size(tmp_path, files):
    paths = files(9, 8, 7, 6, 5)
    damaged = tmp_path / (file_name(NOW - 1, 0) + ".damaged")
    damaged.write_bytes(b"x" * SIZE)
    claims = Claims()
    claims.claim(str(paths[0]))  # that is written, however old it is
    assert Retention(str(tmp_path), 30, 3 * SIZE).enforce(claims) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in (paths[0], *paths[3:]))


def test_a_clock_that_jumps_forward(tmp_path, files, monkeypatch):
    """By a year, while the program runs: it may be wrong."""
    paths = files(24 * 2, 1)
    retention = Retention(str(tmp_path), 30, 1 << 30)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 365 * 86400)
    assert retention.enforce(Claims()) == 0 and all(path.exists() for path in paths)
