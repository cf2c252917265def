"""Parsers of untrusted bytes survive the saved corpus and FUZZ_SECONDS (5) of mutations each; see tests/fuzz."""

import os
import subprocess
import sys

import pytest

from support.paths import TESTS
from support.wheel import is_source_tree

FUZZ = TESTS / "fuzz"
TARGETS = sorted(path.stem for path in (FUZZ / "corpus").glob("*.txt"))


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_are_read_or_refused(target):
    if target == "sock_diag" and not is_source_tree():
        pytest.skip("an installed wheel has no hooks for tests")
    done = subprocess.run(
        [sys.executable, FUZZ, "--seconds", os.environ.get("FUZZ_SECONDS", "5"), target], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split(": ")[1].split(" inputs")[0]) > 1000, done.stdout


def test_every_target_has_a_corpus():
    done = subprocess.run([sys.executable, FUZZ, "none"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("fuzz: there are ")
    assert sorted(done.stderr.removeprefix("fuzz: there are ").partition(" and files")[0].split(", ")) == TARGETS
