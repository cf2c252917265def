"""Started as root in another user's directory and environment, the program runs none of that user's code."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from nfct_fast import __version__

SCRIPT = Path(sys.executable).with_name("nfct-fast")
installed = pytest.mark.skipif(not SCRIPT.exists(), reason="the package is not installed in this environment")
NAMES = (
    "argparse",
    "signal",
    "select",
    "resource",
    "socket",
    "re",
    "enum",
    "errno",
    "time",
    "os",
    "struct",
    "runpy",
    "typing",
    "threading",
    "weakref",
    "sitecustomize",
    "usercustomize",
    "nfct_fast",
    "encodings",
)


@pytest.fixture
def planted(tmp_path):
    """A folder that has a module of each name, each of which leaves a mark; and the marks."""
    marks = tmp_path / "marks"
    marks.mkdir()
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()\n")
    return folder, marks


def says_its_version(command, cwd, **variables):
    done = subprocess.run(
        [*map(str, command), "--version"],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout and done.stderr == ""


def marked(marks):
    return sorted(path.name for path in marks.iterdir())


@installed
def test_the_current_directory(planted):
    folder, marks = planted
    says_its_version([SCRIPT], folder)
    assert marked(marks) == []


@installed
def test_variables_of_another(planted):
    folder, marks = planted
    says_its_version(
        [SCRIPT],
        folder,
        PYTHONPATH=str(folder),
        PYTHONHOME=str(folder),
        PYTHONSTARTUP=str(folder / "os.py"),
        PYTHONINSPECT="1",
        PYTHONWARNINGS="error",
        PYTHONVERBOSE="1",
        PYTHONPLATLIBDIR="planted",
        PYTHONBREAKPOINT="os.system",
        PYTHONCASEOK="1",
        PYTHONUSERBASE=str(folder),
    )
    assert marked(marks) == []


@installed
def test_site_packages_of_another(planted, tmp_path):
    """As where sudo keeps HOME."""
    folder, marks = planted
    site = Path(sysconfig.get_path("purelib", "posix_user", {"userbase": str(tmp_path / "home" / ".local")}))
    shutil.copytree(folder, site)
    (site / "evil.pth").write_text(f"import os; open({str(marks / 'pth')!r}, 'w').close()\n")
    says_its_version([SCRIPT], tmp_path, HOME=str(tmp_path / "home"))
    assert marked(marks) == []


@pytest.mark.parametrize("options", [["-P"], []])
def test_as_a_module(planted, options):
    """Python's own start looks there without -P, but for what it has already."""
    folder, marks = planted
    (folder / "nfct_fast.py").unlink()
    if "-P" not in options:
        (folder / "threading.py").unlink()  # which importlib.util imports since Python 3.12
    says_its_version([sys.executable, *options, "-m", "nfct_fast"], folder)
    assert marked(marks) == []


@installed
def test_by_another_name(planted, tmp_path):
    """pipx links to it; a Python whose path has spaces stands in a second line of the script beside it."""
    folder, marks = planted
    (tmp_path / "link").symlink_to(SCRIPT)
    says_its_version([tmp_path / "link"], folder, PYTHONPATH=str(folder))
    odd = tmp_path / "with a space"
    odd.mkdir()
    shutil.copy(SCRIPT, odd)
    # A shell's line, as installers write it; this Python would not know its packages by another path.
    (odd / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script = (
        f"""#!/bin/sh\n'''exec' "{odd}/python" "$0" "$@"\n' '''\n""" + SCRIPT.with_name("nfct-fast-python").read_text()
    )
    (odd / "nfct-fast-python").write_text(script)
    for name in ("python", "nfct-fast-python"):
        (odd / name).chmod(0o755)
    says_its_version([odd / "nfct-fast"], folder, PYTHONPATH=str(folder))
    assert marked(marks) == []


@installed
def test_without_the_script_beside_it(tmp_path):
    shutil.copy(SCRIPT, tmp_path)
    done = subprocess.run([tmp_path / "nfct-fast"], capture_output=True, text=True)
    assert done.returncode == 1 and "install nfct-fast again" in done.stderr
