"""What the program prints of itself reaches its reader whole, or the program says that it did not."""

import os
import subprocess

import pytest

from support.cli import PROGRAM

DOCUMENTS = [["--print-unit"], ["--man"], ["--completion", "bash"], ["fleet"], ["fleet", "clickhouse.sql"]]
every = pytest.mark.parametrize("option", DOCUMENTS, ids=" ".join)


@every
def test_a_full_disk(option):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, *option], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.endswith("output: No space left on device\n")


@every
def test_a_closed_output(option):
    done = subprocess.run([*PROGRAM, *option], preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "nfct-fast: standard output is closed\n")


@every
def test_a_reader_that_is_gone(option):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PROGRAM, *option], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--completion"], ["--completion", "tcsh"], ["--man", "x", "--nothing"]])
def test_wrong_arguments(arguments):
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 or arguments[0] == "--man"
    assert done.stderr.count("\n") <= 1
