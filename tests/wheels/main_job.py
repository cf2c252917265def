"""Run the installed package's main job, and check its output and which libraries it has loaded.

First beside a rule that uses connection tracking, then without one but with --track and a line that says how the owner
was found; with --bpf it must have been by BPF. Run it as root, in a network namespace of its own, with the Python that
the wheel was installed into. Standard library only:
    unshare --net PYTHON main_job.py [--bpf]
"""

import ctypes.util
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

TABLE = "inet nfct_wheel"
RULE = (
    f"add table {TABLE}; add chain {TABLE} out {{ type filter hook output priority 0; }}; "
    f"add rule {TABLE} out ct state new counter"
)
CLIENT = (
    "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', 9)); "
    "time.sleep(5)"
)
FORMAT = (
    "{ev.proto} {ev.src}/{ev.sport} > {ev.dst}/{ev.dport} :: {info.pid} {info.uid}:{info.gid} {info.match} :: "
    "{info.cmdline}"
)
LIBRARIES = ("libmnl", "libnfnetlink", "libnetfilter_conntrack")


def loaded(pid):
    """Path by library of those three in a process's memory; two copies of one are an error."""
    found = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        for library in LIBRARIES:
            if re.search(rf"/{library}[-.]", path):
                assert found.setdefault(library, path) == path, (
                    f"{library} is loaded twice: {found[library]} and {path}"
                )
    return found


def one_flow(logger, seconds=15):
    """(line, client's pid): sends from new sockets until a line names their process."""
    text, clients, end = "", [], time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            clients.append(subprocess.Popen([sys.executable, "-c", CLIENT]))
            if select.select([logger.stdout], [], [], 1)[0]:
                text += os.read(logger.stdout.fileno(), 65536).decode()
            for client in clients:
                for line in text.splitlines():
                    if re.search(rf":: {client.pid} 0:0 .*:: .*-c import socket", line):
                        return line, client.pid
        raise SystemExit(f"main_job: no line named the client in {seconds} s; printed was {text!r}")
    finally:
        for client in clients:
            client.kill()
            client.wait()


def job(*options):
    """The line of a real flow that names its process, by the libraries of the wheel alone."""
    command = [sys.executable, "-u", "-m", "nfct_fast", "-p", "udp", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as logger:
        try:
            line, pid = one_flow(logger)
            libraries = loaded(logger.pid)
        finally:
            logger.terminate()
    assert logger.returncode == 0, f"it ended with {logger.returncode}"
    assert set(libraries) == set(LIBRARIES), f"loaded are only {libraries}"
    for path in libraries.values():
        assert "/nfct_fast.libs/" in path, f"{path} is not the wheel's own"
        print("loaded:", path)
    print(f"line that names the client ({pid}):", line, flush=True)
    return line


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("system libnetfilter_conntrack:", ctypes.util.find_library("netfilter_conntrack"))
    subprocess.run(["nft", RULE], check=True)
    job()
    subprocess.run(["nft", f"delete table {TABLE}"], check=True)
    line = job("--track", "-f", FORMAT)
    assert "--bpf" not in sys.argv or " 0:0 bpf :: " in line, "the owner is not known from BPF"
    ruleset = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    assert not ruleset, f"a table is left: {ruleset}"


if __name__ == "__main__":
    main()
