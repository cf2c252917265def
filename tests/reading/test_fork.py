"""After a fork a Conntrack does not work in the child, and works undisturbed in the parent."""

import json
import os
import re
import subprocess
import sys

import pytest

from support.cli import inside
from support.paths import SUPPORT

PROGRAM = SUPPORT / "forking_program.py"


def run(netns, *command, **options):
    # Since Python 3.12 a fork beside threads is worth a warning, which is what is tested here.
    environment = options.pop("env", os.environ) | {"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"}
    done = subprocess.run(
        inside(netns, [*command]), capture_output=True, text=True, timeout=60, env=environment, **options
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", ["with", "close", "exit", "forget", "die", "pool"])
def test_what_a_child_does_is_not_felt(tracked, how):
    result = run(tracked, sys.executable, PROGRAM, how)
    assert (result["before"], result["after"]) == (20, 20)
    assert result["cpu"] < 0.1, "something shared was left readable"
    child = result["child"]
    assert child["worked"] == [] and child["own"]
    assert child["status"] == (9 if how == "die" else 0)
    if how in ("with", "close"):
        assert child["left"] <= 0 and child["seconds"] < 3


# A child closes it during a flood: it waits for nothing, whatever locks the threads held at the fork.
FLOODED = """
import os, subprocess, sys, threading, time
from nfct_fast import Conntrack

conntrack = Conntrack(protocol="udp", probe=False)
flood = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
taken, statuses = 0, []
while flood.poll() is None:
    taken += len(conntrack.read(timeout=0.01))
    pid = os.fork()
    if pid == 0:
        conntrack.close()
        del conntrack
        sys.exit(0)
    began = time.monotonic()
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() - began > 10:
            os.kill(pid, 9)
            sys.exit("a child waits for ever")
        taken += len(conntrack.read(timeout=0.01))
    statuses.append(ended[1])
until = time.monotonic() + 30
while taken + conntrack.stats().lost < int(sys.argv[2]) and time.monotonic() < until:
    taken += len(conntrack.read(timeout=0.5))
stats = conntrack.stats()
conntrack.close()
print([taken, stats.lost, statuses])
"""


def test_a_child_waits_for_nothing_amid_many_flows(tracked, flood, tmp_path_factory):
    made = 60_000
    taken, lost, statuses = run(
        tracked,
        sys.executable,
        "-c",
        FLOODED,
        tmp_path_factory.getbasetemp() / "flood",
        str(made),
        "20000",
        "fresh",
        "10.99.1.1",
    )
    assert taken + lost == made and len(statuses) > 5 and set(statuses) == {0}


def test_a_child_writes_to_nothing_that_is_shared(tracked, tmp_path):
    """What its close() asks of the kernel: to close, and to unmap."""
    code = (
        "import os; from nfct_fast import Conntrack; c = Conntrack(probe=False, track=True); pid = os.fork()\n"
        "if not pid: os.getppid(); c.close(); os.getppid(); os._exit(0)\n"
        "os.waitpid(pid, 0); c.close()"
    )
    trace = tmp_path / "trace"
    subprocess.run(
        inside(tracked, ["strace", "-f", "-ff", "-qq", "-e", "signal=none", "-o", trace, sys.executable, "-c", code]),
        check=True,
        timeout=60,
    )
    between = []
    for path in tmp_path.glob("trace.*"):
        parts = path.read_text().split("getppid()")
        between += [parts[1]] if len(parts) == 3 else []
    [calls] = between
    names = set(re.findall(r"^(\w+)\(", calls, re.M))
    assert "close" in names
    assert names <= {"close", "munmap", "mmap", "brk", "madvise", "futex", "fcntl", "getpid"}, names
    assert "FUTEX_WAIT" not in calls


PRELOADED = """
import os
from nfct_fast import Conntrack

conntrack = Conntrack(protocol="udp", probe=False)
owner = os.getpid()


def use():
    try:
        conntrack.read(timeout=0)
        return "works"
    except RuntimeError as error:
        conntrack.close()
        return str(error) if str(owner) in str(error) and owner != os.getpid() else "?"
"""
FORKSERVER = """
import json, multiprocessing, sys

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    import preloaded_by
    with context.Pool(2) as pool:
        answers = pool.map(preloaded_by.use, range(4))
    print(json.dumps(answers))
"""


def test_forkserver(tracked, tmp_path):
    """Made in the server, it is dead in what the server forks; it is not to be had by pickling."""
    (tmp_path / "preloaded.py").write_text(PRELOADED)
    (tmp_path / "preloaded_by.py").write_text("def use(_):\n    import preloaded\n    return preloaded.use()\n")
    (tmp_path / "main.py").write_text(FORKSERVER)
    answers = run(tracked, sys.executable, tmp_path / "main.py", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert len(answers) == 4 and all("does not survive a fork" in answer for answer in answers)


def test_its_internals_are_dead_too(tracked, within):
    """A netlink socket, through which a membership or a subscription of the owner's would end."""
    from nfct_fast.kernel.netlink import NetlinkSocket

    with within():
        sock = NetlinkSocket(12)
        sock.join(1)
    pid = os.fork()
    if pid == 0:
        try:
            for use in (lambda: sock.leave(1), lambda: sock.send(b"x" * 20), sock.messages_now):
                try:
                    use()
                    os._exit(1)
                except RuntimeError:
                    pass
            sock.close()
            sock.close()
            os._exit(0)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    sock.leave(1)
    sock.close()
