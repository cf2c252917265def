"""What will be missing is a warning at the place where a Conntrack is opened."""

import os
import subprocess
import sys
import warnings

import pytest

from nfct_fast import Conntrack, ConntrackWarning, NoEventsWarning, UnknownOwnersWarning
from support.cli import Program, inside

# A pid namespace of its own, where the kernel's notes are of no use.
DEGRADED = """
import warnings
from nfct_fast import Conntrack
with warnings.catch_warnings(record=True) as given:
    warnings.simplefilter("always")
    with Conntrack() as conntrack:
        print([(w.category.__name__, w.filename) for w in given])
        print(conntrack.degraded == tuple(str(w.message) for w in given), len(given))
"""


def test_no_event_can_come(netns, within):
    with within(), pytest.warns(NoEventsWarning) as given:
        with Conntrack(protocol="udp") as conntrack:
            assert [str(warning.message) for warning in given] == list(conntrack.no_event_reasons) != []
    assert {warning.filename for warning in given} == {__file__} and issubclass(NoEventsWarning, ConntrackWarning)


def test_all_will_come(tracked, within, recwarn):
    with within(), Conntrack(protocol="udp"):
        pass
    assert not [warning for warning in recwarn if issubclass(warning.category, ConntrackWarning)]


def test_owners_in_part_only(tracked):
    command = inside(tracked, ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", DEGRADED])
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()
    assert told == [f"[({UnknownOwnersWarning.__name__!r}, '<string>')]", "True 1"]


def test_a_warning_that_is_an_error_leaves_nothing_open(netns, within):
    before = len(os.listdir("/proc/self/fd"))
    with within(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NoEventsWarning):
            Conntrack(protocol="udp")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_program_prints_sentences_of_its_own(netns):
    command = [sys.executable, "-W", "error", "-m", "nfct_fast"]
    with Program(netns, "-p", "udp", command=command) as program:
        assert program.end()[0] == 0
    assert program.complaints and all(line.startswith("nfct-fast: ") for line in program.complaints)
    assert not any("Warning" in line for line in program.complaints)
