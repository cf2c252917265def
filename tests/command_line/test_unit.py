"""The systemd unit that --print-unit prints: what it allows is enough, and systemd finds no fault with it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from nfct_fast.command import unit
from support.child import Child
from support.cli import PROGRAM, Program, inside, run, until

analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
EXPOSURE = 20  # ten times what systemd-analyze security says


def settings(text):
    """The assignments of a unit, with those of the same name joined by blanks."""
    found = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


@pytest.fixture
def path(tmp_path):
    """A file with the unit, of a program that exists."""
    path = tmp_path / "nfct-fast.service"
    path.write_text(unit.unit([shutil.which("true")]))
    return path


def test_prints_the_unit_of_this_installation(netns):
    done = run(netns, "--print-unit")
    assert done.returncode == 0
    printed = settings(done.stdout.decode())
    program = printed["ExecStart"].split()[0]
    assert os.path.isabs(program) and os.access(program, os.X_OK)
    assert printed["ExecStart"].endswith("--store %S/nfct-fast")
    assert printed["Type"] == "notify" and printed["User"] == "nfct-fast"
    python = os.path.realpath(sys.executable)
    complained = f"{python} is in a home directory" in done.stderr.decode()
    assert complained == python.startswith(("/home/", "/root/"))


@analyze
def test_systemd_finds_no_fault(path):
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@analyze
def test_exposure(path):
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", path]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is older than 250")
    assert done.returncode == 0, done.stdout


def test_its_capabilities_are_enough(tracked):
    """Started with them and not as root, the program names what is gone before its flow is read, and complains of
    nothing."""
    capabilities = settings(unit.unit())["AmbientCapabilities"].split()
    assert settings(unit.unit())["CapabilityBoundingSet"].split() == capabilities
    of_setpriv = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    prefix += [f"--{which}={of_setpriv}" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    with Program(tracked, "-p", "udp", prefix=prefix, command=PROGRAM) as program:
        sender = "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9999))"
        with Child(inside(tracked, [sys.executable, "-c", sender])) as process:
            pass
        line = until(lambda: program.flows())
        assert [flow["pid"] for flow in line.values()] == [str(process.pid)]
        program.end()
    assert [line for line in program.complaints if "Landlock" not in line] == []


def calls_of(names):
    """The names of system calls in a SystemCallFilter= of these words."""
    calls = set()
    for name in names:
        if name.startswith("@"):
            listing = subprocess.run(
                ["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True
            ).stdout
            words = [line.strip() for line in listing.splitlines()[1:]]
            calls |= calls_of(word for word in words if word and word[0] != "#")
        else:
            calls.add(name)
    return calls


@analyze
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_its_system_calls_are_enough(tracked, tmp_path):
    words = settings(unit.unit())["SystemCallFilter"].split()
    allowed = calls_of(word for word in words if word[0] != "~") - calls_of(
        word[1:] for word in words if word[0] == "~"
    )
    # Affinity is refused with a price that the unit tells of.
    allowed |= {"sched_setaffinity", "sched_setattr"}
    trace = tmp_path / "trace"
    with Program(tracked, prefix=["strace", "-f", "-o", trace], command=PROGRAM, ready=False) as program:
        done = lambda: trace.exists() and trace.read_text().count("seccomp(") >= 5  # noqa: E731
        until(done, what="the filter of every thread")
        subprocess.run(
            inside(tracked, [sys.executable, "-c", "import socket; socket.socket(2,2).sendto(b'x',('127.0.0.1',9))"])
        )
        program.await_lines(1)
        child = int(trace.read_text().split()[0])
        os.kill(child, 15)
        program.wait()
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.M))
    used -= {"setuid", "setresuid", "setresgid", "setgroups"}  # it is not started as root there
    assert used - allowed == set()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["/opt/nfct-fast/bin/nfct-fast"], "/opt/nfct-fast/bin/nfct-fast"),
        (["/opt/100%/python", "-I", "-m", "nfct_fast"], "/opt/100%%/python -I -m nfct_fast"),
        (["/opt/a b/$x", "$HOME"], '"/opt/a b/$x" $$HOME'),
        (['/opt/"\\\n', "a;b"], '"/opt/\\x22\\x5c\\x0a" "a;b"'),
    ],
)
def test_quoting(words, text):
    assert unit.quoted(words) == text


def test_places_that_are_not_root_s(tmp_path):
    program = tmp_path / "nfct-fast"
    program.write_text("")
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 65534, 65534)
    assert any("can be changed by others than root" in fault for fault in unit.faults(str(program)))
    os.chown(tmp_path, 0, 0)
    program.chmod(0o775)
    assert any(f"{program} can be changed" in fault for fault in unit.faults(str(program)))
    assert unit.faults("/usr/bin/env") == []
    assert any("home directory" in fault for fault in unit.faults("/root/.local/bin/nfct-fast"))
    assert any("No such file" in fault for fault in unit.faults("/opt/nowhere/nfct-fast"))
