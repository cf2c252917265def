"""^C and other signals during a wait or a read are raised at once, and no flow is lost by it."""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial
from operator import call

import pytest

from nfct_fast import Conntrack
from support.child import Child
from support.cli import SECONDS, inside, until
from support.stopwatch import Stopwatch

# Says "ready", one line for each flow, and how it ended; a ^C is no reason to leave descriptors or threads behind.
WAITING = """
import os, sys, threading
from nfct_fast import Conntrack

before = len(os.listdir("/proc/self/fd"))
with Conntrack(protocol="udp", attribution="off") as conntrack:
    print("ready", flush=True)
    flows = iter(conntrack) if sys.argv[1] == "iterate" else (
        flow for wait in iter(lambda: None, 0)
        for flow in conntrack.read(timeout=1e6 if sys.argv[1] == "timeout" else None))
    try:
        for flow in flows:
            print(flow.sport, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(*[flow.sport for flow in conntrack.read(timeout=0)], "left")
assert threading.enumerate() == [threading.main_thread()] and len(os.listdir("/proc/self/fd")) == before
print("closed")
"""


def is_in_epoll_wait(pid):
    # Its name in the kernel: ep_poll; the thread's state alone could be that of any sleep.
    with open(f"/proc/{pid}/wchan") as channel:
        return channel.read() in ("ep_poll", "do_epoll_wait")


@pytest.mark.parametrize("way", ["iterate", "read", "timeout"])
def test_interrupt_while_nothing_comes(tracked, flood, way):
    command = inside(tracked, [sys.executable, "-c", WAITING, way])
    with Child(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        flood(2, 0)
        heard = [int(child.stdout.readline()) for _ in range(2)]
        until(lambda: is_in_epoll_wait(child.pid))
        with Stopwatch() as watch:
            child.send_signal(signal.SIGINT)
            assert select.select([child.stdout], [], [], SECONDS)[0] and child.stdout.readline() == "interrupted\n"
        assert watch.seconds < 1
        assert child.stdout.read() == "left\nclosed\n"
        assert child.wait(SECONDS) == 0 and all(heard)


class Interrupted(Exception):
    pass


# Of what C code calls in turn nothing comes between: a signal is answered within Conntrack's own code alone.
def iterate(conntrack, flows):
    flows.extend(conntrack)


def read(conntrack, flows):
    deque(map(flows.extend, iter(partial(conntrack.read, timeout=0.1), [])), maxlen=0)


@pytest.mark.parametrize("take", [iterate, read])
def test_interrupts_amid_many_flows_lose_none(tracked, within, flood, take):
    def answer(number, frame):
        if frame.f_code is take.__code__:
            raise Interrupted

    flows, interrupts = [], 0
    with within(), Conntrack(protocol="ipv4/udp", attribution="off") as conntrack:
        before = signal.signal(signal.SIGALRM, answer)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        try:
            made = flood(20_000, 0)
            deadline = time.monotonic() + SECONDS
            while len(flows) < made and time.monotonic() < deadline:
                try:
                    take(conntrack, flows)
                except Interrupted:
                    interrupts += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert conntrack.stats().lost == 0
    assert interrupts > 0
    # In order, and each once.
    assert [(flow.dst, flow.dport) for flow in flows] == [("10.99.1.1", 1024 + i) for i in range(made)]


def test_what_an_interrupted_read_had_taken_comes_next(tracked, within, flood):
    """The signal comes when a read has flows already: what it had is handed on, also to an iteration."""

    def answer(number, frame):
        raise Interrupted

    libc = ctypes.CDLL(None)
    with within(), Conntrack(protocol="ipv4/udp", attribution="off") as conntrack:
        read = partial(conntrack.read, timeout=1)
        for then in (lambda: conntrack.read(timeout=1), lambda: [next(conntrack) for _ in range(3)]):
            flood(3, 0)
            until(lambda: conntrack.stats().events % 3 == 0 and select.select([conntrack], [], [], 1)[0])
            before = signal.signal(signal.SIGALRM, answer)
            # Nothing but C code between the signal and the read, which so finds it in its middle.
            try:
                with pytest.raises(Interrupted):
                    deque(map(call, [partial(libc.kill, os.getpid(), signal.SIGALRM), read]), maxlen=0)
            finally:
                signal.signal(signal.SIGALRM, before)
            assert [flow.dport for flow in then()] == [1024, 1025, 1026]
            subprocess.run(inside(tracked, ["conntrack", "-F"]), check=True, capture_output=True)
