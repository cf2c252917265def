"""Flows that begin while the program is stopped have the right owner or none, even where the event was lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from itertools import product

import pytest

from support.cli import SECONDS, Program, inside, until
from support.paths import TESTS
from support.socket_notes import compiled, unusable
from support.whole_flows import set_sysctl

REASON = unusable()
MODES = [
    pytest.param(
        "auto", marks=pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}")
    ),
    "diag",
    "proc",
]
EACH = 200

# SENDER NAME KIND PORT TO...: one socket for each port TO, from source port PORT (0: any); tells the sources, and goes
# on to live with its sockets until its standard input ends. KIND: tcp, connected, udp, bound (to an address, too).
SENDER = """
import socket, sys
_, name, kind, port, *to = sys.argv
kept, sources = [], []
for dport in map(int, to):
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    if int(port):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("" if kind == "udp" else "127.0.0.1", int(port)))
    if kind in ("tcp", "connected"):
        one.connect(("127.0.0.1", dport))
    if kind == "connected":
        one.send(b"x")
    if kind in ("udp", "bound"):
        one.sendto(b"x", ("127.0.0.1", dport))
    sources.append(one.getsockname()[1])
    kept.append(one)
print(*sources, flush=True)
sys.stdin.read()
"""

# Has a program begin with the very process id that another one had, which has ended: clone3 with set_tid.
SAME_PID = """
import ctypes, os, signal, struct, sys
pid, *command = sys.argv[1:]
tid = ctypes.c_int(int(pid))
arguments = ctypes.create_string_buffer(
    struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(tid), 1, 0)
)
child = ctypes.CDLL(None, use_errno=True).syscall(435, arguments, len(arguments.raw) - 1)
if child == 0:
    os.execvp(command[0], command)
if child < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def senders(tmp_path_factory):
    return compiled(TESTS / "bench/senders.c", tmp_path_factory.mktemp("senders"))


class Truth:
    """Who sent what: {(proto, sport, dport): (pid, words of the command line)}."""

    def __init__(self, netns):
        self.netns = netns
        self.sent = {}
        self.flows = Counter()
        self.shared = set()
        self.connected_later = set()

    def note(self, kind, sources, targets, pid, command):
        for sport, dport in zip(sources, targets):
            key = "ipv4/tcp" if "tcp" in kind else "ipv4/udp", sport, dport
            # A second use of an entry that lives is no new flow: the first one is who began it. Of TCP it may be one,
            # once the first has ended; here it is then the same process.
            self.flows[key] += "tcp" in kind or key not in self.sent
            if self.sent.setdefault(key, (pid, [os.fspath(word) for word in command]))[0] != pid:
                self.shared.add(key)
                if kind == "connected":
                    self.connected_later.add(key)

    def send(self, name, kind, port, targets, prefix=()):
        """A process that sent, and lives; its parent if there is a prefix."""
        command = [sys.executable, "-c", SENDER, name, kind, str(port), *map(str, targets)]
        process = subprocess.Popen(
            inside(self.netns, [*prefix, *command]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        sources = list(map(int, process.stdout.readline().split()))
        assert len(sources) == len(targets)
        self.note(kind, sources, targets, process.pid if not prefix else int(prefix[-1]), command)
        return process

    def send_and_end(self, *arguments, **options):
        with self.send(*arguments, **options) as process:
            process.communicate(timeout=SECONDS)
        return process.pid

    def send_all(self, program, modes, count):
        """Many sockets of processes that each end at once."""
        processes = [(mode, [program, "ports", mode, str(count)]) for mode in modes]
        processes = [
            (mode, command, subprocess.Popen(inside(self.netns, command), stdout=subprocess.PIPE, text=True))
            for mode, command in processes
        ]
        for mode, command, process in processes:
            peer, *ports = map(int, process.communicate(timeout=60)[0].split())
            self.note(mode, ports, [peer] * len(ports), process.pid, command)


@contextmanager
def ended(processes):
    """Ended with the block."""
    try:
        yield
    finally:
        for process in processes:
            process.communicate(timeout=SECONDS)


def wrong(records, sent, known=()):
    """Return the records that name another process than the sender, or another command line."""

    def is_right(record):
        pid, command = sent[key(record)]
        owner = record["owner"]
        return owner["pid"] in (None, pid) and owner.get("cmdline", command) == command

    return [
        (
            key(record),
            record["owner"]["pid"],
            record["owner"].get("match"),
            record["owner"].get("cmdline", [])[3:6],
            "instead of",
            sent[key(record)][0],
            sent[key(record)][1][3:6],
        )
        for record in records
        if key(record) not in known and not is_right(record)
    ]


def key(record):
    return record["proto"], record["original"]["sport"], record["original"]["dport"]


@pytest.mark.parametrize("attribution", MODES)
@pytest.mark.parametrize("rcvbuf", ["64K", "64M"])
def test_owners_of_what_began_while_it_was_stopped(tracked, within, senders, attribution, rcvbuf):
    living, truth = [], Truth(tracked)
    with ExitStack() as stack:
        with within():
            # Where events were lost the table tells of flows, however long this test takes on a busy machine.
            for timeout in ("udp_timeout", "tcp_timeout_close", "tcp_timeout_time_wait"):
                set_sysctl(f"nf_conntrack_{timeout}", 600)
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4 * EACH))
        port = listener.getsockname()[1]
        program = stack.enter_context(
            Program(
                tracked,
                "--json",
                "-p",
                "^ipv4/(tcp|udp)$",
                "--attribution",
                attribution,
                "--rcvbuf",
                rcvbuf,
                "--rcvbuf-max",
                rcvbuf,
            )
        )
        stack.enter_context(ended(living))
        program.stop()
        targets = range(20_000, 20_000 + EACH)
        for number in range(2):
            living += [
                truth.send(f"living {number}", "udp", 0, targets),
                truth.send(f"living {number}", "connected", 0, targets),
                truth.send(f"living {number}", "tcp", 0, [port] * EACH),
            ]
            for kind in ("udp", "connected"):
                truth.send_and_end(f"gone {number}", kind, 0, targets)
        truth.send_all(senders, ["udp", "cudp", "tcp"] * 2, 1_000)
        for number in range(20):
            truth.send_and_end(f"first of port {7000 + number}", "udp", 7000 + number, [21_000 + number])
            living.append(truth.send(f"second of port {7000 + number}", "udp", 7000 + number, [22_000 + number]))
        # The second use of a living entry is no flow. Without the kernel's notes its exact socket is taken for the
        # first one.
        kinds = ["udp", "bound", "connected"]
        for number, (first, second) in enumerate(
            2 * list(product(kinds, kinds if attribution == "auto" else kinds[:2]))
        ):
            truth.send_and_end(f"first of flow {number}", first, 8000 + number, [25_000 + number])
            living.append(truth.send(f"second of flow {number}", second, 8000 + number, [25_000 + number]))
        for number in range(10):
            gone = truth.send_and_end(f"first of its pid {number}", "udp", 0, [23_000 + number])
            living.append(
                truth.send(
                    f"second of its pid {number}",
                    "udp",
                    0,
                    [24_000 + number],
                    prefix=[sys.executable, "-c", SAME_PID, str(gone)],
                )
            )
        time.sleep(1.5)  # of what may be older than this, no port's user of now is named
        os.kill(program.pid, signal.SIGCONT)

        records, flows, keys = [], [], set()

        def told():
            for line in program.lines[len(records) :]:
                records.append(record := json.loads(line))
                if record["type"] == "NEW" and key(record) in truth.sent:
                    flows.append(record)
                    keys.add(key(record))
            lost = sum(record["lost"] for record in records if record["type"] == "LOST")
            return (lost,) if len(keys) + lost >= len(truth.sent) else None

        [lost] = until(told, 2 * SECONDS, "all flows")
        assert program.end()[0] == 0
    times = Counter(map(key, flows))
    assert times <= truth.flows and times.total() + lost <= truth.flows.total() and len(times) > 5_000
    # By chance, too, a port may be given a second time for the same target.
    assert wrong(flows, truth.sent, () if attribution == "auto" else truth.connected_later) == []
    recovered = [record for record in flows if record.get("recovered")]
    assert bool(recovered) == (rcvbuf == "64K")
    unknown = [
        truth.sent[key(record)]
        for record in flows
        if record["owner"]["pid"] is None and key(record) not in truth.shared
    ]
    if attribution == "auto":
        reasons = Counter(record["owner"]["reason"] for record in flows if record["owner"]["pid"] is None)
        assert [command[3:6] for _, command in unknown] == [], reasons
    else:
        alive = {process.pid for process in living}
        assert [command[3:6] for pid, command in unknown if pid in alive and command[4] in ("tcp", "connected")] == []


@pytest.mark.skipif(REASON is not None, reason=f"owner tracking cannot run here: {REASON}")
@pytest.mark.parametrize("second", ["udp", "connected"])
def test_where_notes_were_overwritten_nobody_is_named(tracked, senders, second):
    """The note of the first user is gone, that of the second is there: nothing proves that the flow is his."""
    living, truth = [], Truth(tracked)
    with ExitStack() as stack:
        program = stack.enter_context(Program(tracked, "--json", "-p", "^ipv4/udp$", "--notes", "1000"))
        stack.enter_context(ended(living))
        program.stop()
        truth.send_and_end("first", "udp", 8000, [25_000])
        truth.send_all(senders, ["cudp"], 5_000)
        living.append(truth.send("second", second, 8000, [25_000]))
        os.kill(program.pid, signal.SIGCONT)
        program.await_lines(len(truth.sent))
        assert program.end()[0] == 0
    records = [json.loads(line) for line in program.lines]
    [flow] = [record for record in records if key(record) == ("ipv4/udp", 8000, 25_000)]
    assert (flow["owner"]["pid"], flow["owner"]["reason"]) == (None, "ambiguous")
    assert wrong(records, truth.sent) == []
