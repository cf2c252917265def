"""Flows of every kind, made by processes that report what they did: the known truth to compare the owners with."""

import contextlib
import ctypes
import functools
import os
import pickle
import signal
import socket
import struct
import subprocess
import time
import traceback
from typing import NamedTuple

import pytest

from nfct_fast.conntrack import Conntrack
from support.cli import SECONDS

CLONE_NEWPID, CLONE_NEWNS, PR_SET_PDEATHSIG = 0x20000000, 0x00020000, 1
COUNT = 20
INET, INET6, STREAM, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
BOTH = pytest.mark.parametrize("mode", ["diag", "proc"])
ALL = pytest.mark.parametrize("mode", ["auto", "diag", "proc"])
KINDS = pytest.mark.parametrize("kind", [STREAM, DGRAM])


def close_after(worker, sock):
    """In the work: close a socket once the test has its flow, and wait until no table that lists it is believed."""
    worker.hear()
    sock.close()
    time.sleep(0.03)  # a table is believed for 20 ms


class Made(NamedTuple):
    """A flow as the process that made it saw it."""

    pid: int
    inode: int
    src: str
    sport: int
    dst: str = ""


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def made(sock, dst="", pid=None):
    src, sport = sock.getsockname()[:2]
    return Made(pid or os.getpid(), inode(sock), src.removeprefix("::ffff:"), sport, dst)


class Worker:
    """A forked process that runs work(self), whose return value is result(). It is killed when the block ends."""

    def __init__(self, work):
        self._told, tell = os.pipe()
        listen, self._say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.close(self._told)
                os.close(self._say)
                self._told, self._say = listen, tell
                self.say(work(self))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(tell)
        os.close(listen)
        self._rest = b""

    def say(self, thing):
        """Send an object from the work to the test, or from the test to the work."""
        data = pickle.dumps(thing)
        os.write(self._say, struct.pack("I", len(data)) + data)

    def hear(self):
        size = struct.unpack("I", self._read(4))[0]
        return pickle.loads(self._read(size))

    def hold(self):
        """In the work: keep everything open until the test asks for the result, with all flows in its hands."""
        self.hear()

    def result(self):
        with contextlib.suppress(BrokenPipeError):
            self.say("enough")
        return self.hear()

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = os.read(self._told, size - len(data))
            if not part:
                raise EOFError("the other process is gone")
            data += part
        return data

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._told)
        os.close(self._say)


def _alone(work):
    """Run work() in a process that is the first of a new pid namespace with its own /proc. Return what it raised, as
    text, or None."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWPID | CLONE_NEWNS) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
            work()
        except BaseException:
            os.write(tell, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(tell)
    with open(told) as stream:
        text = stream.read()
    return text or (None if os.waitpid(pid, 0)[1] == 0 else "it was killed")


def alone(test):
    """Run a test in a pid namespace of its own, where it may inspect every process: on some hosts even root may not."""

    @functools.wraps(test)
    def run(*arguments, **named):
        with Worker(lambda worker: _alone(lambda: test(*arguments, **named))) as worker:
            failure = worker.result()
        assert failure is None, failure

    return run


def collect(conntrack, wanted, seconds=SECONDS):
    """Return the flows received until wanted(flow) was true for COUNT different sources, or the time is over."""
    return collect_count(conntrack, wanted, COUNT, seconds)


def collect_count(conntrack, wanted, count, seconds=SECONDS):
    flows = []
    end = time.monotonic() + seconds
    while len(flows) < count and time.monotonic() < end:
        flows += [flow for flow in conntrack.read(timeout=0.2) if wanted(flow)]
    return flows


def collect_in_turn(conntrack, wanted, count, worker):
    """The same from a worker that hears after each flow: it may close the flow's socket once the flow was received."""
    flows = []
    for number in range(count):
        flows += collect_count(conntrack, wanted, 1)
        assert len(flows) == number + 1, flows
        worker.say("received")
    return flows


def listening(mode="auto", **options):
    """A Conntrack in the thread's namespace, with tracking on."""
    return Conntrack(attribution=mode, track=True, probe=False, **options)


def server(family, address, port, kind=socket.SOCK_STREAM, accept=True, options=(), v6only=None):
    """A Worker that serves: it says (port, inode) when it is ready, and keeps accepted connections open."""

    def serve(worker):
        sock = socket.socket(family, kind)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6only is not None:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        for level, option in options:
            sock.setsockopt(level, option, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
        worker.say((sock.getsockname()[1], inode(sock)))
        kept = []
        while True:
            if kind == socket.SOCK_STREAM and accept:
                kept.append(sock.accept()[0])
            elif kind == socket.SOCK_STREAM:
                time.sleep(60)
            else:
                sock.recv(100)

    return Worker(serve)


def nft(rules, netns=None):
    """Load a ruleset given as text into the thread's namespace, or the named one."""
    words = ["ip", "netns", "exec", netns] if netns else []
    subprocess.run([*words, "nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)


def names(flows, truth):
    """Return [(is the owner right, flow)] for the flows whose source is in `truth`, once per source."""
    by_source = {(one.src, one.sport): one for one in truth}
    return [(by_source[flow.src, flow.sport], flow) for flow in flows if (flow.src, flow.sport) in by_source]


def assert_all_named(flows, truth, count=COUNT):
    """Check that every flow was reported, with the pid and the socket of the process that made it."""
    pairs = names(flows, truth)
    assert len({(one.src, one.sport) for one, _ in pairs}) == count == len(truth)
    for one, flow in pairs:
        assert (flow.owner.pid, flow.owner.reason) == (one.pid, None), (flow, flow.owner)
        # BPF notes have no inodes.
        assert flow.owner.inode == one.inode or flow.owner.match == "bpf", (flow, flow.owner)


def send(port=9):
    """A socket that has sent a datagram to that port of this host."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port))
    sock.send(b"x")
    return sock


def udp(family, address, port, connect=False, bind=None):
    def work(worker):
        told = []
        socks = [socket.socket(family, DGRAM) for _ in range(COUNT)]
        for sock in socks:
            if bind is not None:
                sock.bind((bind, 0))
            if connect:
                sock.connect((address, port))
                sock.send(b"x")
            else:
                sock.sendto(b"x", (address, port))
            # The address an unconnected socket spoke from is the loopback one it spoke to.
            told.append(made(sock)._replace(src=address.removeprefix("::ffff:")))
        worker.hold()
        return told

    return work


def both_ends(mode, serve, work, port):
    with listening(mode) as conntrack, serve as answering:
        _, there = answering.hear()
        with Worker(work) as asking:
            flows = collect(conntrack, lambda flow: flow.dport == port)
            truth = asking.result()
        assert_all_named(flows, truth)
        for flow in flows:
            assert flow.direction == "local"
            assert (flow.peer.pid, flow.peer.reason) == (answering.pid, None)
        return flows, there


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(family, number):
    kind = 8 if family == INET else 128
    packet = struct.pack("!BBHHH", kind, 0, 0, number, 1)
    return struct.pack("!BBHHH", kind, 0, checksum(packet) if family == INET else 0, number, 1)
