"""Network namespaces, senders and the capability check that the tests of the BPF notes share."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nfct_fast.sockets.socket_notes import SocketNotes
from support.paths import TESTS

LOOPBACK = {"udp6": ("::1", "::1"), "tcp6": ("::1", "::1"), "cudp6": ("::1", "::1")}
_numbers = itertools.count()


def unusable():
    """Return why the notes cannot be tested here, or None."""
    if not shutil.which("ip"):
        return "no ip(8) to make network namespaces with"
    try:
        SocketNotes(notes=1).close()
    except OSError as error:
        return str(error)
    return None


class Namespace:
    def __init__(self):
        self.name = f"nfbpf-{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.run("ip", "link", "set", "lo", "up")
        self.cookie = int(self.python("from nfct_fast.sockets.socket_notes import netns_cookie; print(netns_cookie())"))

    def start(self, *command, cgroup=None, **options):
        """Start a command in the namespace. `ip netns exec` execs, so the pid is the command's. As it hides
        /sys/fs/cgroup, the move to the cgroup comes before."""
        move = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', cgroup] if cgroup else []
        return subprocess.Popen(
            [*move, "ip", "netns", "exec", self.name, *map(str, command)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            **options,
        )

    def run(self, *command):
        process = self.start(*command)
        out = process.communicate(timeout=60)[0]
        assert process.returncode == 0, command
        return out

    def script(self, text, *arguments, cgroup=None):
        """Start a Python process that runs `text`, with line-buffered output."""
        return self.start(sys.executable, "-u", "-c", text, *arguments, cgroup=cgroup, stdin=subprocess.PIPE)

    def python(self, text, *arguments):
        return self.run(sys.executable, "-c", text, *arguments)

    def delete(self):
        subprocess.run(["ip", "netns", "del", self.name], check=True)


@contextlib.contextmanager
def namespace():
    space = Namespace()
    try:
        yield space
    finally:
        space.delete()


def compiled(source, directory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler for the sender")
    program = Path(directory) / Path(source).stem
    subprocess.run([compiler, "-O2", "-Wall", "-pthread", str(source), "-o", str(program)], check=True)
    return program


def tuples(mode, output):
    """Return the tuples of a sender of this mode, parsed from its output."""
    peer, *ports = map(int, output.split())
    src, dst = LOOPBACK.get(mode, ("127.0.0.1", "127.0.0.1"))
    return {(6 if "tcp" in mode else 17, src, port, dst, peer) for port in ports}


def answers(owners, wanted, pid, cookie):
    """Return how many tuples are not found, and how many have another owner."""
    found = [owners.find(*each, cookie) for each in wanted]
    return found.count(None), sum(1 for each in found if each and (each["pid"] != pid or each["match"] == "bound"))


# A program that binds port 5555 of its argument, an address, and sends one datagram to 127.0.0.1:9.
SEND = (
    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    "s.bind((sys.argv[1], 5555)); s.sendto(b'', ('127.0.0.1', 9))"
)


def owner_of(owners, netns):
    return owners.find(17, "127.0.0.1", 5555, "127.0.0.1", 9, netns.cookie)


@pytest.fixture(scope="module")
def owners():
    with SocketNotes() as owners:
        yield owners


@pytest.fixture
def netns():
    with namespace() as space:
        yield space


@pytest.fixture(scope="module")
def senders(tmp_path_factory):
    return compiled(TESTS / "bench/senders.c", tmp_path_factory.mktemp("senders"))
