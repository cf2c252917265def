"""The sdist contains every tracked file and nothing else."""

import os
import subprocess
import tarfile

import pytest

from support.paths import ROOT
from support.wheel import is_source_tree, sdist

if is_source_tree() and os.environ.get("CI") != "true":
    pytest.importorskip("build", reason="needs the dependency group wheel")
pytestmark = pytest.mark.skipif(not is_source_tree() or not (ROOT / ".git").exists(), reason="needs a git checkout")

REPOSITORY_ONLY = (".github/", ".ci/", ".gitignore", ".pre-commit-config.yaml")
MADE_BY_SETUPTOOLS = ("PKG-INFO", "setup.cfg", "src/nfct_fast.egg-info/")


@pytest.fixture(scope="module")
def held():
    with tarfile.open(sdist()) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_holds_every_tracked_file_and_no_other(held):
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    known = {name for name in listing.split("\0") if name and (ROOT / name).exists()}
    wanted = {name for name in known if not name.startswith(REPOSITORY_ONLY)}
    assert len(wanted) > 20
    assert {name for name in held if not name.startswith(MADE_BY_SETUPTOOLS)} == wanted


def test_holds_the_licences(held):
    assert {"LICENSE", "include/licenses/LGPL-2.1.txt"} <= held


def test_holds_nothing_built(held):
    assert not {
        name
        for name in held
        if name.endswith((".so", ".o", ".pyc", ".c"))
        and not (name.endswith(".c") and name.startswith(("src/", "include/", "tests/")))
    }
