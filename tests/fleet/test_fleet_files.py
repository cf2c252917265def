"""`nfct-fast fleet` prints the files that are installed for it, as they are."""

import subprocess
from importlib.resources import files

from support.cli import PROGRAM


def printed(*arguments):
    return subprocess.run([*PROGRAM, "fleet", *arguments], capture_output=True, check=True).stdout


def installed():
    folder = files("nfct_fast").joinpath("data/fleet")
    # pip compiles relay.py.
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name != "__pycache__"}


def test_each_file():
    known = installed()
    assert "clickhouse.sql" in known
    for name, content in known.items():
        assert printed(name) == content


def test_the_list_has_a_line_on_each():
    lines = printed().decode().splitlines()
    assert [line.split()[0] for line in lines] == sorted(installed())
    for line in lines:
        assert len(line) <= 120 and len(line.split()) > 3, f"the first line of {line.split()[0]} must say what it is"
