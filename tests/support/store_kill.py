"""Kill the program and its processes while flows are stored under load, and look at what is missing afterwards."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from support.child import Child
from support.store_checks import check_integrity, family, query

# One flow for each port, of which it says when it was made.
_SENDER = """
import socket, sys, time
s = socket.socket(2, 2)
for port in range(1, 60000):
    s.sendto(b"x", (sys.argv[1], port))
    sys.stdout.write("%d %d\\n" % (port, time.time_ns()))
    if port % 20 == 0:
        sys.stdout.flush()
        time.sleep(0.01)
"""


class Killed(NamedTuple):
    """What one kill left."""

    made: int  # flows of the sender
    missing: int  # of these, not in the store
    age: float  # seconds from when the oldest missing one was made to the kill; 0 if none is missing


def kill_once(program, store, netns, address, seconds) -> Killed:
    """Have a running program store flows, kill everything of it after some seconds, and check the store."""
    command = ["nsenter", f"--net=/run/netns/{netns}", sys.executable, "-c", _SENDER, address]
    with Child(command, stdout=subprocess.PIPE) as sender:
        lines = bytearray()
        os.set_blocking(sender.stdout.fileno(), False)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            lines += sender.stdout.read() or b""
            time.sleep(0.01)
        processes = family(program)
        at = time.time_ns()
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sender.kill()
        lines += sender.stdout.read() or b""
    program.wait()
    for pid in processes[1:]:
        while os.path.exists(f"/proc/{pid}"):
            time.sleep(0.005)
    check_integrity(store)
    made = dict(map(int, line.split()) for line in lines.rpartition(b"\n")[0].splitlines())
    made = {port: moment for port, moment in made.items() if moment < at}
    network = bytes(map(int, address.split(".")))
    stored = {port for port, dst in query(store, "SELECT dport, dst FROM flow") if dst == network}
    missing = [moment for port, moment in made.items() if port not in stored]
    return Killed(len(made), len(missing), (at - min(missing)) / 1e9 if missing else 0.0)
