"""A machine of the fleet: namespaces of its own for the network, mounts and the host's name, and processes in it."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

from support.netns import ip, made

BRIDGE = "fleet"
NETWORK = "10.97.0"


def wait_for(condition, seconds, what):
    """Wait for condition() to return a true value, and return it; SystemExit if it does not in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return value


class Machine:
    """Use machine() to make one.

    Attributes: name; folder, with what its processes say; netns.
    """

    def __init__(self, name, netns, folder, holder):
        self.name, self.netns, self.folder, self._holder = name, netns, folder, holder
        self._running = {}

    def path(self, path):
        """A file of this machine as seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root") / path.lstrip("/")

    def command(self, *command):
        return ["nsenter", "-t", str(self._holder.pid), "-n", "-m", "-u", "--", *map(str, command)]

    def run(self, *command, **options):
        """Run a program to its end; SystemExit with what it said if it fails."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=60, **options)
        if done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, title, *command, **options):
        """Start a program under a title. What it says goes to a file of that name."""
        with open(self.folder / f"{title}.log", "ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | options
            self._running[title] = subprocess.Popen(self.command(*command), **options)
        return self._running[title]

    def end(self, title, how=signal.SIGKILL):
        """Send a signal and wait for the end. The program has to be running: else the fault would be none."""
        process = self._running.pop(title)
        if process.poll() is not None:
            raise SystemExit(f"{self.name}: {title} ended by itself: {self.said(title)}")
        process.send_signal(how)
        process.wait(30)

    def signal(self, title, number):
        self._running[title].send_signal(number)

    def kill_child(self, title, words):
        """Kill -9 the child of a program that has `words` in its command line; SystemExit if there is none."""
        for children in Path(f"/proc/{self._running[title].pid}/task").glob("*/children"):
            for pid in children.read_text().split():
                if words in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(int(pid), signal.SIGKILL)
                    return
        raise SystemExit(f"{self.name}: {title} has no child {words}")

    def wait(self, title, seconds):
        """Wait until a program has ended by itself; SystemExit if it failed."""
        process = self._running.pop(title)
        if process.wait(seconds):
            raise SystemExit(f"{self.name}: {title} failed: {self.said(title)}")

    def said(self, title):
        return (self.folder / f"{title}.log").read_text(errors="replace")[-2000:]

    def end_all(self):
        for process in self._running.values():
            process.kill()
            process.wait()


def _mounts(name, folder, hosts):
    """The commands that make this machine look like one of its own."""
    for path in ("var/log/nfct-fast", "var/spool/rsyslog", "rsyslog.d"):
        (folder / path).mkdir(parents=True)
    # Both ids are files that programs read; those of the machine below are the same for all.
    for file, text in (
        ("hosts", hosts),
        ("machine-id", uuid.uuid4().hex + "\n"),
        ("boot-id", f"{uuid.uuid4()}\n"),
    ):
        (folder / file).write_text(text)
    binds = {
        "var/log": "/var/log",
        "var/spool": "/var/spool",
        "rsyslog.d": "/etc/rsyslog.d",
        "hosts": "/etc/hosts",
        "machine-id": "/etc/machine-id",
        "boot-id": "/proc/sys/kernel/random/boot_id",
    }
    yield f"hostname {name}"
    for source, target in binds.items():
        yield f"mount --bind {folder / source} {target}"


@contextlib.contextmanager
def machine(name, folder, hosts, address, bridge=None):
    """A new machine with an address of NETWORK, on the bridge of another one or, without `bridge`, with the bridge."""
    with made() as netns:
        if bridge is None:
            ip("link", "add", BRIDGE, "type", "bridge", netns=netns)
            ip("link", "set", BRIDGE, "up", netns=netns)
            ip("addr", "add", f"{address}/24", "dev", BRIDGE, netns=netns)
        else:
            ip("link", "add", "eth0", "netns", netns, "type", "veth", "peer", "name", name, "netns", bridge)
            ip("link", "set", name, "up", "master", BRIDGE, netns=bridge)
            ip("link", "set", "eth0", "up", netns=netns)
            ip("addr", "add", f"{address}/24", "dev", "eth0", netns=netns)
        folder.mkdir()
        script = " && ".join(
            ["mount --make-rprivate /", *_mounts(name, folder, hosts), "echo ready", "exec sleep 3600"]
        )
        command = ["nsenter", f"--net=/run/netns/{netns}", "unshare", "--mount", "--uts", "sh", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            try:
                if holder.stdout.readline() != b"ready\n":
                    raise SystemExit(f"{name}: its namespaces could not be made")
                new = Machine(name, netns, folder, holder)
                try:
                    yield new
                finally:
                    new.end_all()
            finally:
                holder.kill()


def start_rsyslog(machine):
    """Start rsyslog with the file that was put in /etc/rsyslog.d."""
    pid_file = machine.folder / "rsyslog.pid"
    pid_file.unlink(missing_ok=True)
    machine.start("rsyslog", "rsyslogd", "-n", "-f", "/etc/rsyslog.d/nfct-fast.conf", "-i", pid_file)


def cut(machine):
    ip("link", "set", "eth0", "down", netns=machine.netns)


def mend(machine):
    ip("link", "set", "eth0", "up", netns=machine.netns)
