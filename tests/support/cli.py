"""Run the program in a namespace, as a process of its own whose output is collected."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from support.stopwatch import Stopwatch

LINE = re.compile(
    r"(?P<ts>\d+): (?P<proto>ipv[46]/\S+) (?P<src>\S+)/(?P<sport>\d+) > (?P<dst>\S+)/(?P<dport>\d+) :: "
    r"(?P<pid>\S+) (?P<uid>\S+):(?P<gid>\S+) (?P<service>\S+) :: (?P<cmdline>.*)"
)
PROGRAM = [sys.executable, "-m", "nfct_fast"]
# The sanitizers report to files, which the program cannot write any more once it has dropped its rights.
COMMAND = [*PROGRAM, *os.environ.get("NFCT_TEST_ARGUMENTS", "").split()]
AS_NOBODY = () if "--no-sandbox" in COMMAND else ("--user", "nobody")
SECONDS = 40  # longest wait in a test, for what comes at once unless the machine is busy


def until(condition, seconds=SECONDS, what="what was waited for"):
    """Wait for condition() to return a true value, and return that. AssertionError if it does not in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s"
        time.sleep(0.005)
    return value


def inside(netns, command):
    """Return the command line that runs `command` in a namespace. nsenter execs, so the process id stays the same."""
    return ["nsenter", f"--net=/run/netns/{netns}", *command]


def run(netns, *arguments, **options):
    """Run the program to its end."""
    return subprocess.run(inside(netns, [*COMMAND, *arguments]), capture_output=True, timeout=SECONDS, **options)


class Program:
    """The running program. `lines` and `complaints` are what it has written so far to standard output and error."""

    def __init__(
        self,
        netns,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        prefix=(),
        ready=True,
        command=COMMAND,
        **options,
    ):
        self.lines, self.complaints = [], []
        self.process = subprocess.Popen(
            inside(netns, [*prefix, *command, *arguments]), stdout=stdout, stderr=stderr, **options
        )
        self.pid = self.process.pid
        self._threads = [
            threading.Thread(target=self._collect, args=pair)
            for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.complaints))
            if pair[0]
        ]
        for thread in self._threads:
            thread.start()
        if ready:
            until(self._is_ready, what=f"readiness ({self.complaints})")

    @staticmethod
    def _collect(stream, into):
        # os.read(), since a file object's buffer would delay what has been written already.
        rest = b""
        while data := os.read(stream.fileno(), 1 << 20):
            *whole, rest = (rest + data).split(b"\n")
            into.extend(line.decode() for line in whole)
        if rest:
            into.append(rest.decode())

    def _is_ready(self):
        """Whether everything is open, which shows in that the program handles SIGTERM."""
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.complaints}"
        with open(f"/proc/{self.pid}/status") as status:
            [caught] = [int(line.split()[1], 16) for line in status if line.startswith("SigCgt")]
        return caught >> signal.SIGTERM - 1 & 1

    def stop(self):
        """Stop it, until SIGCONT; return when each of its threads has stopped."""
        self.process.send_signal(signal.SIGSTOP)

        def has_stopped():
            states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(tasks).glob("*/stat")]
            return all(state == "T" for state in states)

        tasks = f"/proc/{self.pid}/task"
        until(has_stopped, what="the stop of every thread")

    def await_all_read(self, seconds=SECONDS):
        """Wait until the netfilter sockets of its namespace have empty queues."""

        def is_empty():
            with open(f"/proc/{self.pid}/net/netlink") as table:
                rows = [line.split() for line in table][1:]
            return all(int(row[4]) == 0 for row in rows if row[1] == "12")

        until(is_empty, seconds, "the end of the queue")

    def flows(self):
        """Return the lines so far, parsed: {(proto, sport, dport): dict of the fields}."""
        found = {}
        for line in list(self.lines):
            match = LINE.fullmatch(line)
            assert match, f"no line of the default form: {line!r}"
            found[match["proto"], int(match["sport"]), int(match["dport"])] = match.groupdict()
        return found

    def await_lines(self, count, seconds=SECONDS):
        until(lambda: len(self.lines) >= count, seconds, f"line {count} (have {len(self.lines)}: {self.lines[-3:]})")
        return self.lines

    def end(self, number=signal.SIGTERM, seconds=SECONDS):
        """Send a signal, wait for the end, and return the exit status and how many seconds of a Stopwatch it took."""
        with Stopwatch() as watch:
            self.process.send_signal(number)
            status = self.wait(seconds)
        return status, watch.seconds

    def wait(self, seconds=SECONDS):
        status = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(SECONDS)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
