"""What was seen is kept in the store: after a restart no mark comes twice, after a kill none is missing."""

import json
import os
import subprocess

import pytest

from support.cli import AS_NOBODY, PROGRAM, Program, inside, until
from support.socket_notes import unusable
from support.store_checks import check_integrity
from support.store_kill import kill_once

REASON = unusable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}"),
]
OPTIONS = ("-p", "udp", *AS_NOBODY, "--first-seen", "--json")


def addresses(first, last):
    return [word for i in range(first, last) for word in (f"127.3.{i // 200}.{i % 200 + 1}", "7000")]


def tell(netns, talk, *to):
    subprocess.run(inside(netns, [talk, *to]), check=True, stdin=subprocess.DEVNULL, capture_output=True)


def found(store, *words):
    result = subprocess.run([*PROGRAM, "find", "--store", store, "--json", *words], capture_output=True, timeout=30)
    assert result.returncode in (0, 1) and not result.stderr, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def marked(lines):
    return [json.loads(line)["original"]["dst"] for line in lines if '"first_seen"' in line]


def test_a_restart_marks_nothing_again(tracked, talk, store):
    with Program(tracked, *OPTIONS, "--store", store) as program:
        until(lambda: any("nothing is remembered yet" in line for line in program.complaints))
        tell(tracked, talk, *addresses(0, 20), *addresses(0, 20))
        program.await_lines(40)
        assert len(marked(program.lines)) == 20
        assert program.end()[0] == 0
        live = [json.loads(line) for line in program.lines]
    assert os.stat(store / "seen").st_mode & 0o777 == 0o600
    assert found(store, "--new") == [flow for flow in live if "first_seen" in flow]
    assert len(found(store)) == 40
    with Program(tracked, *OPTIONS, "--store", store) as program:
        assert not any("remembered" in line for line in program.complaints)
        tell(tracked, talk, *addresses(0, 25))
        program.await_lines(25)
        assert marked(program.lines) == addresses(20, 25)[::2]
        assert program.end()[0] == 0
    assert [flow["original"]["dst"] for flow in found(store, "--new", "--since=-1h")] == addresses(0, 25)[::2]
    assert len(found(store, "--new", "dst", "127.3.0.3-127.3.0.5")) == 3
    assert len(found(store, "first_seen", "port")) == 1 and len(found(store, "not", "first_seen", "any")) == 40
    assert found(store, "--new", "--until=-1h") == []


def test_after_a_kill_every_mark_is_in_the_store_or_comes_again(tracked, talk, store):
    """A flow that is new to what is remembered, but whose record is gone, would never be told."""
    for number in range(3):
        program = Program(tracked, *OPTIONS, "--store", store)
        try:
            for i in range(0, 60, 4):
                tell(tracked, talk, *addresses(60 * number + i, 60 * number + i + 4))
            kill_once(program, store, tracked, f"127.4.0.{number + 1}", 0.2 + 0.2 * number)
        finally:
            program.__exit__()
    with Program(tracked, *OPTIONS, "--store", store) as program:
        tell(tracked, talk, *addresses(0, 180))
        program.await_lines(180)
        assert program.end()[0] == 0
    check_integrity(store)
    flows = found(store, "--new", "first_seen", "destination", "dst", "127.3.0.0/16", "--events")
    assert {flow["original"]["dst"] for flow in flows} == set(addresses(0, 180)[::2])


def test_a_file_that_somebody_spoiled_is_told_of_and_begun_anew(tracked, talk, store):
    with Program(tracked, *OPTIONS, "--store", store) as program:
        assert program.end()[0] == 0
    (store / "seen").symlink_to("/etc/shadow")
    with Program(tracked, *OPTIONS, "--store", store) as program:
        until(lambda: any("is a symbolic link" in line for line in program.complaints))
        tell(tracked, talk, *addresses(0, 3))
        program.await_lines(3)
        assert program.end()[0] == 0
    assert not (store / "seen").is_symlink() and (store / "seen").stat().st_size > 64
