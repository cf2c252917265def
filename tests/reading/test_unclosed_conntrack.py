"""A Conntrack that nobody closes, or that could not be made, leaves no thread and no descriptor behind."""

import gc
import json
import resource
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from nfct_fast import Conntrack
from nfct_fast.filters.flow_filter import FlowFilter
from nfct_fast.reading.engine import Engine
from support.cli import SECONDS, inside, until
from support.leaks import descriptors, tasks
from support.stopwatch import Stopwatch


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("attribution", ["auto", "off"])
def test_collected_as_garbage_it_leaves_nothing(tracked, within, cycle, attribution):
    with within():
        for _ in range(2):  # the first leaves what is kept for good, such as the random device
            before = tasks(), descriptors()
            conntrack = Conntrack(attribution=attribution, track=True, probe=False)
            assert tasks() > before[0] and len(descriptors()) > len(before[1])
            if cycle:
                held = [conntrack]
                held.append(held)
                del held
            del conntrack
            gc.collect()
        until(lambda: tasks() == before[0])  # the last of a thread is after its last word
        assert descriptors() == before[1]


def test_closed_in_its_own_thread(tracked, within):
    """As the garbage collector may do there: the reading thread runs Python once a second."""
    with within():
        before = tasks(), descriptors()
        engine, ended = Engine(), threading.Event()

        def close_within():
            engine.close()  # must not wait for itself
            ended.set()

        engine.open(
            FlowFilter(),
            SimpleNamespace(drop=close_within, spawn_helper=None),
            True,
            {"mode": "off"},
            None,
            False,
            1 << 20,
            1 << 20,
            presentation=None,
            redactor=None,
            groups={1},
            recover=True,
        )
        assert ended.wait(SECONDS)
        until(lambda: (tasks(), descriptors()) == before)


@pytest.mark.parametrize(
    "arguments",
    [{"netns": "no-such-namespace"}, {"rcvbuf": 1}, {"attribution": "magic"}, {"notes": 0}, {"protocol": "("}],
)
def test_a_constructor_that_fails_leaves_nothing(tracked, within, arguments):
    with within():
        Conntrack(probe=False).close()
        gc.collect()
        before = tasks(), descriptors()
        for _ in range(3):
            with pytest.raises((ValueError, OSError)):
                Conntrack(probe=False, **arguments)
        gc.collect()
        until(lambda: tasks() == before[0])
        assert descriptors() == before[1]


def test_a_constructor_that_lacks_a_descriptor_leaves_nothing(tracked, within):
    """Whichever it is that cannot be had."""
    with within():
        Conntrack(probe=False, track=True).close()
        gc.collect()
        before = tasks(), descriptors()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        failed = 0
        try:
            # A limit is one of numbers, and the lowest that is free is taken.
            free = [fd for fd in range(1000) if str(fd) not in before[1]]
            for more in range(200):
                resource.setrlimit(resource.RLIMIT_NOFILE, (free[more], hard))
                try:
                    conntrack = Conntrack(probe=False, track=True)
                except OSError:
                    failed += 1
                else:
                    missing = conntrack.degraded
                    conntrack.close()
                    del conntrack
                    if missing == ():
                        break
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                until(lambda: tasks() == before[0])
                assert descriptors() == before[1], f"with {more} descriptors"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert failed > 5
        gc.collect()
        until(lambda: tasks() == before[0])
        assert descriptors() == before[1]


# ^C at any moment of the constructor; the program itself prints what is left.
INTERRUPTED = """
import gc, json, os, signal, sys, time
from nfct_fast import Conntrack

Conntrack(probe=False, attribution="off").close()
gc.collect()


def resources():
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def await_resources(wanted):
    # A thread's task may still exist for a moment after its last instruction.
    end = time.monotonic() + 2
    while resources() != wanted and time.monotonic() < end:
        time.sleep(0.002)
    return resources()


before = await_resources((1, resources()[1]))
left, interrupted = [], 0
for moment in range(1, 300):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, moment / 20_000)
            conntrack = Conntrack(probe=False, attribution="off")
            conntrack.close()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:       # perhaps just before the timer is taken back
        interrupted += 1
    conntrack = None
    gc.collect()
    now = await_resources(before)
    if now != before:
        left.append([moment, *now])
print(json.dumps([interrupted, before, left]))
"""


def test_interrupted_while_it_is_made(tracked):
    code = "import signal; signal.signal(signal.SIGALRM, signal.default_int_handler)\n" + INTERRUPTED
    done = subprocess.run(inside(tracked, [sys.executable, "-c", code]), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    interrupted, before, left = json.loads(done.stdout)
    assert interrupted > 0 and left == []


def test_the_interpreter_ends_with_it_open(tracked):
    """At once, and without a word."""
    code = "from nfct_fast import Conntrack; c = Conntrack(probe=False, track=True); next_batch = c._next_batch(0.1)"
    with Stopwatch() as watch:
        done = subprocess.run(
            inside(tracked, [sys.executable, "-c", code]), capture_output=True, text=True, timeout=SECONDS
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert watch.seconds < 3
    assert (
        subprocess.run(inside(tracked, ["nft", "list", "tables"]), capture_output=True, text=True).stdout
        == "table inet user\n"
    )
