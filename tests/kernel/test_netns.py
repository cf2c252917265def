"""Network namespaces are found, entered and left; the truth is what "ip netns" made and the kernel's inode numbers."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nfct_fast.kernel import netns
from support.child import Child
from support.netns import made

pytestmark = pytest.mark.root


def here():
    return os.stat("/proc/thread-self/ns/net").st_ino


@pytest.fixture(scope="module")
def name():
    with made() as name:
        yield name


@pytest.fixture
def space(name):
    [space] = netns.resolve(name)
    with space:
        yield space


def process(name):
    """A process in the namespace that ends with its standard input."""
    return subprocess.Popen(
        ["ip", "netns", "exec", name, sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_by_name_and_path(name):
    inode = os.stat(f"/run/netns/{name}").st_ino
    for spec in (name, f"/run/netns/{name}"):
        [space] = netns.resolve(spec)
        with space:
            assert (space.inode, space.name) == (inode, spec)
            assert os.fstat(space.fileno()).st_ino == inode


def test_by_pid(name, space):
    with process(name) as child:
        child.stdout.readline()
        [found] = netns.resolve(child.pid)
        with found:
            assert found.inode == space.inode
        assert (child.pid, space.inode) in netns.pids()
        child.communicate(b"\n")
    assert space.inode not in [inode for _, inode in netns.pids()]


def test_all(name, space):
    spaces = netns.resolve("all")
    try:
        inodes = [each.inode for each in spaces]
        assert len(set(inodes)) == len(inodes)
        assert {space.inode, here()} <= set(inodes)
        assert [each.name for each in spaces if each.inode == space.inode] == [name]
    finally:
        for each in spaces:
            each.close()


def test_unnamed_namespaces_are_found_by_process():
    # unshare(1) makes one without a name.
    with Child(
        ["unshare", "-n", sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        child.stdout.readline()
        inode = os.stat(f"/proc/{child.pid}/ns/net").st_ino
        assert netns.paths()[inode] == (f"pid:{child.pid}", f"/proc/{child.pid}/ns/net")
        child.communicate(b"\n")
    assert inode not in netns.paths()


@pytest.mark.parametrize(
    "spec, error, words",
    [
        ("nfdiag-no-such", FileNotFoundError, "no network namespace 'nfdiag-no-such'; named ones: "),
        ("/run/netns/nfdiag-no-such", FileNotFoundError, "No such file"),
        ("4194999", ProcessLookupError, "no process 4194999"),
        ("/proc/self/ns/mnt", OSError, "not a network namespace"),
        ("/etc/passwd", OSError, "not a network namespace"),
        ("", FileNotFoundError, "no network namespace ''"),
    ],
)
def test_what_is_not_there(name, spec, error, words):
    with pytest.raises(error, match=words) as caught:
        netns.resolve(spec)
    if "named ones" in words:
        assert name in str(caught.value)


def test_leftover_name_of_a_namespace_that_is_gone():
    path = f"/run/netns/nfdiag-{os.getpid()}-empty"
    open(path, "x").close()
    try:
        with pytest.raises(OSError, match="not a network namespace"):
            netns.resolve(os.path.basename(path))
        assert path not in [path for name, path in netns.paths().values()]
    finally:
        os.unlink(path)


def test_entered(space):
    home = here()
    with space.entered() as entered:
        assert entered is space
        assert here() == space.inode == netns.current() != home
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert here() == home == netns.current()


def test_left_on_error(space):
    home = here()
    with pytest.raises(ZeroDivisionError), space.entered():
        raise ZeroDivisionError
    assert here() == home


def test_nested(space):
    home = here()
    with made() as other, space.entered():
        [second] = netns.resolve(other)
        with second, second.entered():
            assert here() == second.inode
        assert here() == space.inode
    assert here() == home


def test_only_this_thread_enters(space):
    home, seen = here(), []
    with space.entered():
        thread = threading.Thread(target=lambda: seen.append(netns.current()))
        thread.start()
        thread.join()
        # A new thread starts where its maker is; the main one has not been moved by a thread's entering.
        assert seen == [space.inode]

    def enter():
        with space.entered():
            seen.append(os.stat(f"/proc/{os.getpid()}/ns/net").st_ino)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen[1] == home


def test_no_descriptors_are_left(space):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with space.entered():
            pass
        for each in netns.resolve("all"):
            each.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_closed(name):
    [space] = netns.resolve(name)
    space.close()
    space.close()
    assert space.fileno() == -1
    with pytest.raises(ValueError), space.entered():
        pass


WITHOUT_RIGHTS = """
import os, sys
from nfct_fast.kernel import netns
[space] = netns.resolve(sys.argv[1])
home = netns.current()
os.setgid(4242); os.setuid(4242)
try:
    with space.entered():
        print("entered")
except PermissionError as error:
    print(error, netns.current("/proc") == home)
"""


def test_needs_a_right(name):
    out = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, name],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout
    assert f"network namespace {name}: entering needs CAP_SYS_ADMIN" in out and "True" in out


def test_names_that_cannot_be_got_at_any_more():
    """docker's folder of names is in one that only root may enter: what is there is found all the same after that was
    given up."""
    code = """
import os, subprocess, sys
from nfct_fast.kernel import netns, privileges
run = lambda *words: subprocess.run(words, check=True)
guest = sys.argv[1]
run("mount", "-t", "tmpfs", "-o", "mode=0700", "none", "/run/docker")
os.mkdir("/run/docker/netns")
open("/run/docker/netns/one", "w").close()
run("mount", "--bind", f"/run/netns/{guest}", "/run/docker/netns/one")
run("umount", f"/run/netns/{guest}")
inode, kept = os.stat("/run/docker/netns/one").st_ino, netns.keep_named()
assert netns.paths(kept=kept)[inode] == ("one", "/run/docker/netns/one")
privileges.become(65534, 65534)
privileges.drop(("net_admin", "sys_ptrace"))
assert inode not in netns.paths()
name, path = netns.paths(kept=kept)[inode]
with netns.Netns(path, name) as space:
    assert (space.name, space.inode) == ("one", inode)
print("done")
"""
    folder = Path("/run/docker")
    ours = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        with made(up=False) as guest:
            done = subprocess.run(
                ["unshare", "--mount", sys.executable, "-c", code, guest],
                capture_output=True,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
    finally:
        if ours:
            folder.rmdir()
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
