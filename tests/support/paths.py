"""Paths that tests use: in the source tree, or where the tests were copied to in order to test an installed package."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
