"""A pattern takes time in proportion to the name, whatever whoever chose the name had in mind."""

import pytest

from nfct_fast.filters.flow_filter import FlowFilter
from support.filters import glob
from support.hooks import verdicts

FLOW = {"proto": 6, "orig": ("::1", 1, "::1", 2), "reply": None, "zone": 0, "mark": 0, "netns": 1, "direction": 1}
FLOW["peer"] = {}


def keeps(text, cmdline):
    return verdicts(FlowFilter(None, text), FLOW | {"owner": {"pid": 1, "cmdline": cmdline}})[2]


@pytest.mark.parametrize(
    "pattern", ["a", "*", "**", "a*", "*a", "*a*", "a*a", "a*b*a", "?", "??*", "*?", "*a?b*", "a*?*a"]
)
@pytest.mark.parametrize("name", ["a", "b", "aa", "ab", "aba", "abab", "aabba", "bab", "a" * 9])
def test_it_matches_as_fnmatch_does(pattern, name):
    assert keeps(f"cmdline {pattern}", name.encode()) == glob(pattern)(name.encode())


@pytest.mark.parametrize(
    "pattern", ["*a" * 100 + "b", "*" + "a" * 250 + "b*", "*" + "a?" * 120 + "b*", "*a?" * 80 + "*b", "?" * 255]
)
def test_no_name_makes_it_slow(pattern):
    """Where a choice is taken back, each of these takes longer than anybody waits."""
    for _ in range(100):
        assert not keeps(f"cmdline '{pattern}'", b"a" * 4096)
