"""What README.md shows as a program runs as it stands there."""

import re
import socket
import subprocess
import sys
import time

import pytest

from support.cli import Program, until
from support.columns import reader
from support.paths import ROOT
from support.wheel import is_source_tree


def example(heading):
    """The first indented block of Python in a section."""
    if not is_source_tree():
        pytest.skip("the README is not here: tests run against an installed package")
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"(?:^    .*\n|^\n)+", section, re.M)
    return next(re.sub(r"^    ", "", block, flags=re.M) for block in blocks if "import" in block)


def flow():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        client.send(b"x")
        server.sendto(b"y" * 99, client.getsockname())


def test_bytes_of_each_unit(tracked, within):
    reader("duckdb")
    with within(), open("/proc/sys/net/netfilter/nf_conntrack_acct", "w") as file:
        file.write("1")
    with Program(tracked, command=[sys.executable, "-uc", example("Batches")], ready=False) as program, within():

        def told():
            flow()
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
            time.sleep(0.1)
            assert program.process.poll() is None, program.complaints
            # 99 bytes and two headers for each flow; how many of them are in one batch is chance.
            numbers = map(int, re.findall(r"\b\d+\b", "\n".join(program.lines)))
            return any(number % 127 == 0 < number for number in numbers)

        until(told)
        assert "sum(reply_bytes)" in "\n".join(program.lines)
