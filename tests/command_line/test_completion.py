"""What each shell completes, in the real shell."""

import os
import shutil
import subprocess

import pytest

from support.cli import PROGRAM
from support.netns import made
from support.typed import OF_FISH, bash, fish, try_all, zsh


@pytest.fixture
def script(tmp_path):
    def make(shell):
        if not shutil.which(shell):
            pytest.skip(f"needs {shell}")
        path = tmp_path / "completion"
        path.write_bytes(subprocess.run([*PROGRAM, "--completion", shell], stdout=subprocess.PIPE, check=True).stdout)
        return path

    return make


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_typed(script, name):
    path = script(name)
    with {"bash": bash, "zsh": zsh}[name](path) as shell, made() as namespace:
        try_all(shell, namespace)


def test_fish(script):
    path = script("fish")

    def completions(line):
        done = subprocess.run(fish(path, line), capture_output=True, text=True, check=True)
        return {line.partition("\t")[0] for line in done.stdout.splitlines()}

    for line, word in OF_FISH.items():
        assert word in completions(line)
    with made() as namespace:
        assert namespace in completions("--netns ")


def test_a_namespace_s_name_is_not_run(script, tmp_path):
    """compgen -W would expand it."""
    path = script("bash")
    mark = tmp_path / "mark"
    evil = f"/run/netns/$(touch${{IFS}}{str(mark).replace('/', '%')})"
    open(evil, "w").close()
    try:
        with bash(path) as shell:
            shell.type("nfct-fast --netns \t\t")
            shell.await_text("all")
    finally:
        os.unlink(evil)
    assert list(tmp_path.iterdir()) == [path]
