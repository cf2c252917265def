"""A process has one identity, whoever reports it, and others can compute it."""

import base64
import contextlib
import hashlib
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from calendar import timegm
from pathlib import Path

import pytest

from nfct_fast import Conntrack
from nfct_fast.processes.process_object import process
from support.cli import Program, inside, until
from support.flows import Worker
from support.users import NOBODY, as_user

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
SENDER = """
import os, socket, sys, time
if len(sys.argv) > 2 and os.fork():
    os.wait()
    sys.exit()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(sys.argv[1])))
sock.sendto(b"x", ("127.0.0.1", 9))
print(os.getpid(), flush=True)
time.sleep(30)
"""


def entity_id(pid):
    """By the recipe in README.md."""
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    digest = hashlib.sha1(f"{BOOT_ID}:{pid}:{start}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:12]).decode()


def test_the_recipe_of_the_readme():
    own = process(os.getpid())
    assert own.entity_id == entity_id(os.getpid()) and len(own.entity_id) == 16
    assert own.start == process(os.getpid()).start
    assert abs(own.start - os.stat("/proc/self").st_ctime) < 3600
    assert process(1).entity_id == entity_id(1)


def own_line(lines, pid):
    for line in lines:
        if line["owner"]["pid"] == pid if isinstance(line, dict) else line.startswith(f"{pid} "):
            return line


@pytest.mark.parametrize(("attribution", "forks"), [("auto", ()), ("auto", ("fork",)), ("diag", ())])
def test_in_json(tracked, attribution, forks):
    began = time.time()
    template = "{info.pid} {info.entity_id} {info.start} {info.user} {info.group} {peer.user}"
    with (
        Program(tracked, "-pudp", "--json", "--attribution", attribution) as program,
        Program(tracked, "-pudp", "-f", template, "--attribution", attribution) as lines,
    ):
        command = inside(tracked, [sys.executable, "-c", SENDER, "4001", *forks])
        sender = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            pid = int(sender.stdout.readline())
            record = until(lambda: own_line(map(json.loads, program.lines), pid))
            line = until(lambda: own_line(lines.lines, pid))
            expected = entity_id(pid)
            ancestors = [entity_id(sender.pid)] if forks else []
        finally:
            sender.kill()
            sender.wait()
            if forks:
                os.kill(pid, 9)
        program.end()
        lines.end()
    owner = record["owner"]
    assert (owner["pid"], owner["entity_id"], owner["user"], owner["group"]) == (pid, expected, "root", "root")
    if attribution == "auto":
        assert [one["entity_id"] for one in owner["ancestors"]][: len(ancestors)] == ancestors
        assert entity_id(1) in [one["entity_id"] for one in owner["ancestors"] if one["pid"] == 1] or not any(
            one["pid"] == 1 for one in owner["ancestors"]
        )
    start = timegm(time.strptime(owner["start"][:19], "%Y-%m-%dT%H:%M:%S"))
    assert began - 2 < start < began + 30 and len(owner["start"]) == 23
    assert record["schema"] == 1 and record["host"] == os.uname().nodename and record["boot_id"] == BOOT_ID
    if Path("/etc/machine-id").exists():
        assert record["machine_id"] == Path("/etc/machine-id").read_text().strip()
    assert line == f"{pid} {expected} {owner['start']} root root -"


def send_as_nobody(worker):
    as_user()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 4001))
        sock.sendto(b"x", ("127.0.0.1", 9))
        worker.say("sent")
        worker.hear()


def test_in_the_class(tracked, within):
    with within(), Conntrack(protocol="udp", probe=False) as conntrack, contextlib.ExitStack() as stack:
        assert conntrack.host.boot_id == BOOT_ID and conntrack.host.name == os.uname().nodename
        sender = stack.enter_context(Worker(send_as_nobody))
        assert sender.hear() == "sent"
        owner = until(lambda: next((one.owner for one in conntrack.read(timeout=1) if one.sport == 4001), None))
        assert owner.process.entity_id == entity_id(sender.pid)
        assert owner.user == owner.process.user == name_of(NOBODY)
        by_pid = {one.pid: one for one in owner.process.ancestors}
        assert by_pid[os.getpid()].entity_id == entity_id(os.getpid()) == process(os.getpid()).entity_id
        assert by_pid[os.getpid()].start == process(os.getpid()).start
        sender.say("end")


def name_of(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
