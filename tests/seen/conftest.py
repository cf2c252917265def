import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.store_checks import place


@pytest.fixture(scope="module")
def talk():
    """A program that sends to ADDRESS PORT..., which every user may execute."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or pytest.skip("no C compiler")
    with tempfile.TemporaryDirectory(prefix="nfct-talk-") as folder:  # pytest's own are for one user only
        os.chmod(folder, 0o755)
        program = Path(folder, "talk")
        subprocess.run([compiler, "-O1", "-o", program, Path(__file__).with_name("talk.c")], check=True)
        yield program


@pytest.fixture
def store():
    """The path of a store that is not there yet, where an unprivileged user can get."""
    with place() as path:
        yield path / "store"
