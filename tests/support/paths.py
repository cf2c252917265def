"""Where things are: beside the sources, or where the tests were copied to, to try an installed package."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
