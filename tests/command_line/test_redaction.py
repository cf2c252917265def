"""No output, of no kind, has what must not be seen of a command line."""

import json
import socket
import subprocess
import sys
import time

import pytest

from nfct_fast import DEFAULT_REDACTIONS, Conntrack
from support.cli import Program, inside, run, until

SECRET = "hunter2-S3cr3t"
ARGUMENTS = ["--password", SECRET, f"--token={SECRET}", f"http://me:{SECRET}@example.org/", "plain"]
SHOWN = ["--password", "[redacted]", "--token=[redacted]", "http://me:[redacted]@example.org/", "plain"]
# Argument 1: what to do. Both ends are its own; the title is written over the arguments, as sshd does.
SENDER = """
import ctypes, os, socket, sys, time
if sys.argv[1] == "fork" and os.fork():
    os.wait()
    sys.exit()
if sys.argv[1] == "title":
    stat = open("/proc/self/stat").read().rpartition(")")[2].split()
    begin, end = int(stat[45]), int(stat[46])
    title = b"title --password " + sys.argv[3].encode()
    ctypes.memmove(begin, title + b"\\0" * (end - begin - len(title)), end - begin)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 9))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", 4001))
sock.sendto(b"x", ("127.0.0.1", 9))
print(os.getpid(), flush=True)
sys.stdin.read()
"""


class Sender:
    def __init__(self, netns, what="send", arguments=ARGUMENTS):
        command = inside(netns, [sys.executable, "-c", SENDER, what, *arguments])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        self.pid = int(self.process.stdout.readline())
        return self

    def __exit__(self, *_):
        self.process.communicate(b"")


def own_flow(conntrack):
    """Its flow; others are those by which programs look at the start whether events come."""
    return until(lambda: next((flow for flow in conntrack.read(timeout=1) if flow.sport == 4001), None))


def all_text(flow):
    """Whatever can be got out of a Flow, as text."""
    found = [repr(flow)]
    for owner in (flow.owner, flow.peer):
        if owner is not None:
            found.append(repr(owner))
            for process in owner.processes:
                found += [repr(process), *(str(getattr(process, name)) for name in dir(process) if name[0] != "_")]
    return " ".join(found)


@pytest.mark.parametrize("attribution", ["auto", "diag"])
@pytest.mark.parametrize("what", ["send", "fork", "title"])
def test_no_way_out(tracked, within, what, attribution):
    options = ["-pudp", "--attribution", attribution, "--redact-defaults"]
    with (
        within(),
        Conntrack(protocol="udp", probe=False, attribution=attribution, redact=DEFAULT_REDACTIONS) as conntrack,
        Program(tracked, *options) as lines,
        Program(tracked, *options, "--json") as records,
    ):
        with Sender(tracked, what):
            flow = own_flow(conntrack)
            until(lambda: any("/4001 >" in line for line in lines.lines))
            until(lambda: any('"sport":4001' in line for line in records.lines))
        programs = [lines, records]
        for program in programs:
            program.end()
    everything = " ".join([all_text(flow), *lines.lines, *records.lines, *lines.complaints, *records.complaints])
    assert SECRET not in everything
    [record] = [record for record in map(json.loads, records.lines) if record["original"]["sport"] == 4001]
    for shown in (flow.owner.process.cmdline, record["owner"]["cmdline"], record["peer"]["cmdline"]):
        assert "[redacted]" in " ".join(shown)
        assert what == "title" or list(shown[-len(SHOWN) :]) == SHOWN
    assert attribution == "diag" or any("[redacted]" in line for line in lines.lines)


def test_without_it_all_is_shown(tracked, within):
    with within(), Conntrack(protocol="udp", probe=False) as conntrack, Sender(tracked):
        flow = own_flow(conntrack)
    assert list(flow.owner.process.cmdline[-len(ARGUMENTS) :]) == ARGUMENTS


def test_all_who_used_a_tuple(tracked, within):
    with within(), Conntrack(events=("DESTROY",), protocol="udp", probe=False, redact=DEFAULT_REDACTIONS) as conntrack:
        for _ in range(3):
            with Sender(tracked):
                time.sleep(0.05)
        subprocess.run(["conntrack", "-D", "-p", "udp"], capture_output=True)
        flow = own_flow(conntrack)
    assert len(flow.owner.processes) == 3
    for process in flow.owner.processes:
        assert list(process.cmdline[-len(SHOWN) :]) == SHOWN
    assert SECRET not in all_text(flow)


def test_own_expressions_and_none(tracked, within):
    with within():
        with Conntrack(protocol="udp", probe=False, redact="S3c[a-z0-9]+t") as own, Sender(tracked):
            flow = own_flow(own)
        assert flow.owner.process.cmdline[-1] == "plain" and "hunter2-[redacted]" in flow.owner.process.cmdline
        with Conntrack(protocol="udp", probe=False, cmdline=False) as none, Sender(tracked):
            subprocess.run(["conntrack", "-D", "-p", "udp"], capture_output=True)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", ("127.0.0.1", 10))
            flows = []
            until(lambda: flows.extend(none.read(timeout=1)) or flows)
    assert {flow.owner.process.cmdline for flow in flows} == {None}


def test_the_program_shows_no_command_lines(tracked):
    with (
        Program(tracked, "-pudp", "--no-cmdline") as lines,
        Program(tracked, "-pudp", "--no-cmdline", "--json") as records,
    ):
        with Sender(tracked):
            until(lambda: any("/4001 >" in line for line in lines.lines))
            until(lambda: any('"sport":4001' in line for line in records.lines))
        lines.end()
        records.end()
    assert SECRET not in " ".join([*lines.lines, *records.lines])
    assert not any("cmdline" in json.loads(line)["owner"] for line in records.lines)
    assert any(":: [python" in line for line in lines.lines)


def test_a_bad_expression_is_one_line(netns):
    for pattern in ("(", r"(a)\1"):
        result = run(netns, "--redact", pattern)
        assert result.returncode == 2 and result.stderr.count(b"\n") == 1 and b"redact" in result.stderr


def test_a_command_line_made_to_be_slow(tracked, within):
    """Of a user who knows the expression: re would search for years."""
    hostile = ["a" * 4000]
    with within(), Conntrack(protocol="udp", probe=False, redact="(a*)*b|(a|aa)+$|a.*c") as conntrack:
        with Sender(tracked, arguments=hostile):
            flow = own_flow(conntrack)
    assert "aaaa" not in all_text(flow)
