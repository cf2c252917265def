"""A program with a hostile name, whose flow is looked for."""

import subprocess
import sys
import time

SHOWN = r"ev\nil\x1b[2J"
CULPRIT = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, b"ev\\nil\\x1b[2J")
s = socket.socket(2, 2)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"x")
print(s.getsockname()[1], flush=True)
sys.stdin.read()
"""


class Culprit:
    """A program that sends a datagram and lives on until the block ends."""

    def __init__(self, netns, address="127.0.0.1", port=53):
        command = ["nsenter", f"--net=/run/netns/{netns}", sys.executable, "-c", CULPRIT, address, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self.address, self.port = address, port

    def __enter__(self):
        self.sport = int(self._process.stdout.readline())
        self.time = time.time()
        return self

    def __exit__(self, *exception):
        self._process.communicate(timeout=10)
