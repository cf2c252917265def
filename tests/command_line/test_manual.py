"""The manual page: complete, current, and without a fault that the tools for such pages find."""

import shutil
import subprocess
import sys

import pytest

import nfct_fast
from support.cli import PROGRAM
from support.paths import ROOT
from support.wheel import is_source_tree

PAGE = ROOT / "src/nfct_fast/data/nfct-fast.1"
from_source = pytest.mark.skipif(not is_source_tree(), reason="needs the source tree")


def tool(name):
    return pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}")


def printed():
    return subprocess.run([*PROGRAM, "--man"], capture_output=True, text=True, check=True).stdout


@from_source
def test_is_current():
    from nfct_fast.data.generate_man import page

    assert PAGE.read_text() == page(), "the options or the tables of README.md have changed: run `make man`"


def test_is_printed_into_a_pipe():
    text = printed()
    assert text.startswith('.\\"') and f'"nfct_fast {nfct_fast.__version__}"' in text
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILTERS", "FIELDS", "SIGNALS", "EXAMPLES"):
        assert f".SH {heading}\n" in text
    for word in (r"\-\-netns", "ev.community_id", "reply sport", "ambiguous", "unanswered", r"entity_id"):
        assert word in text


@tool("mandoc")
def test_mandoc_finds_no_fault():
    done = subprocess.run(["mandoc", "-Tlint", "-W", "style"], input=printed(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@tool("groff")
def test_groff_finds_no_fault():
    done = subprocess.run(["groff", "-ww", "-man", "-z", "-Kutf8"], input=printed(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@tool("man")
@tool("script")
def test_is_shown_on_a_terminal(tmp_path):
    """By man, with the pager that the user has."""
    command = " ".join(f"'{word}'" for word in [sys.executable, *PROGRAM[1:], "--man"])
    done = subprocess.run(
        ["script", "-qec", f"MANPAGER=cat PATH=/usr/bin:/bin {command}", "/dev/null"],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and "NFCT-FAST(1)" in done.stdout and ".SH" not in done.stdout
