"""Count how many flows of everyday traffic are attributed to a process, and whether to the right one.

Run as root: python tests/bench/bench_mixture.py. The traffic: mDNS responders that share a port, clients of a DNS
server, an NTP daemon with SO_REUSEADDR, workers with SO_REUSEPORT, a preforked server, and containers behind a router.
Each process reports what it sent, which is compared with the flows. Nothing is timed; to compare two versions, run it
with each in PYTHONPATH.
"""

import collections
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nfct_fast import Conntrack  # noqa: E402
from nfct_fast.kernel.netns import resolve  # noqa: E402
from support.flows import Worker  # noqa: E402
from support.netns import inside, ip  # noqa: E402
from support_bench import rounds, table  # noqa: E402

INET, DGRAM, STREAM = socket.AF_INET, socket.SOCK_DGRAM, socket.SOCK_STREAM
REUSEADDR, REUSEPORT = (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
MDNS, DNS, NTP, WORKERS, PREFORK, WORLD = 5353, 53, 123, 8053, 8080, 7000
SERVERS = 4


def bound(kind, port, options=(), address=""):
    sock = socket.socket(INET, kind)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.bind((address, port))
    if kind == STREAM:
        sock.listen(500)
    return sock


def sender(port, options, targets):
    """Return work that sends to all targets from one socket."""

    def work(worker):
        sock = bound(DGRAM, port, options)
        made = []
        for address, to in targets:
            made.append((time.monotonic_ns(), (port, address, to)))
            sock.sendto(b"x", (address, to))
            time.sleep(0.002)
        worker.say(made)
        worker.hear()

    return work


def clients(kind, address, port, count):
    """Return work that connects `count` times, from a fresh socket each time."""

    def work(worker):
        made = []
        for _ in range(count):
            with socket.socket(INET, kind) as sock:
                at = time.monotonic_ns()
                sock.connect((address, port))
                if kind == DGRAM:
                    at = time.monotonic_ns()
                    sock.send(b"x")
                made.append((at, (sock.getsockname()[1], address, port)))
            time.sleep(0.002)
        worker.say(made)
        worker.hear()

    return work


def server(kind, port, options=()):
    def work(worker):
        sock = bound(kind, port, options)
        worker.say({os.getpid()})
        worker.hear()
        sock.close()

    return work


def preforked(port):
    """Return work of a server whose children share its socket.

    The oldest holder should be named, or the child that had accepted the connection by the time its event was read.
    """

    def work(worker):
        sock = bound(STREAM, port)
        pids = {os.getpid()}
        for _ in range(SERVERS):
            child = os.fork()
            if child == 0:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                while True:
                    sock.accept()[0].close()
            pids.add(child)
        worker.say(pids)
        worker.hear()

    return work


def within(name, work):
    """Return `work` run in another network namespace."""

    def run(worker):
        [netns] = resolve(name)
        with netns, netns.entered():
            return work(worker)

    return run


@contextlib.contextmanager
def containers(host, count):
    """Make network namespaces behind a router."""
    names = [f"{host}-c{number}" for number in range(count)]
    try:
        for number, name in enumerate(names, 1):
            ip("netns", "add", name)
            ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name, netns=host)
            ip("addr", "add", f"10.77.{number}.1/24", "dev", f"v{number}", netns=host)
            ip("link", "set", f"v{number}", "up", netns=host)
            ip("link", "set", "lo", "up", netns=name)
            ip("addr", "add", f"10.77.{number}.2/24", "dev", "eth0", netns=name)
            ip("link", "set", "eth0", "up", netns=name)
            ip("route", "add", "default", "via", f"10.77.{number}.1", netns=name)
        yield names
    finally:
        for name in names:
            with contextlib.suppress(Exception):
                ip("netns", "del", name)


def one_round():
    """Return {kind of traffic: Counter of verdicts}."""
    verdicts = collections.defaultdict(collections.Counter)
    with inside() as host, contextlib.ExitStack() as stack:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
        names = stack.enter_context(containers(host, 3))
        started = []

        def serving(*work):
            return set().union(*[stack.enter_context(Worker(each)).hear() for each in work])

        peers = {
            DNS: serving(server(DGRAM, DNS)),
            PREFORK: serving(preforked(PREFORK)),
            WORKERS: serving(*[server(DGRAM, WORKERS, REUSEPORT)] * SERVERS),
        }
        with Conntrack(track=True, probe=False) as conntrack:
            for number in range(3):
                targets = [(f"127.{number + 1}.0.{last}", MDNS) for last in range(1, 51)]
                started.append(("mDNS", sender(MDNS, REUSEPORT, targets)))
            started.append(("NTP", sender(NTP, REUSEADDR, [(f"127.9.0.{last}", NTP) for last in range(1, 101)])))
            started += [("DNS", clients(DGRAM, "127.0.0.1", DNS, 200))] * 2
            started += [("SO_REUSEPORT", clients(DGRAM, "127.0.0.1", WORKERS, 200))]
            started += [("prefork", clients(STREAM, "127.0.0.1", PREFORK, 200))]
            for name in names:
                work = clients(DGRAM, f"10.77.{3 if name == names[0] else 1}.2", WORLD, 100)
                started.append(("container", within(name, work)))
            sent = []
            flows = []
            running = [(kind, stack.enter_context(Worker(work))) for kind, work in started]
            for kind, worker in running:
                sent += [(at, key, (kind, worker.pid)) for at, key in worker.hear()]
                flows += conntrack.read(timeout=0)
            # A port that two clients had in turn makes one flow of UDP, which is the first one's.
            truth = {key: user for _, key, user in sorted(sent, reverse=True)}
            end = time.monotonic() + 5
            while len(flows) < len(truth) and time.monotonic() < end:
                flows += conntrack.read(timeout=0.2)
            for flow in flows:
                kind, pid = truth.pop((flow.sport, flow.dst, flow.dport), (None, None))
                if kind is None:
                    continue
                verdicts[kind]["flows"] += 1
                verdicts[kind][verdict(flow.owner, {pid})] += 1
                if flow.dport in peers:
                    verdicts[f"{kind}: its server"]["flows"] += 1
                    verdicts[f"{kind}: its server"][verdict(flow.peer, peers[flow.dport])] += 1
            for kind, _ in truth.values():
                verdicts[kind]["not received"] += 1
            for _, worker in running:
                worker.say("end")
    return verdicts


def verdict(owner, right):
    if owner is None or owner.pid is None:
        return "ambiguous" if owner is not None and owner.reason == "ambiguous" else "no name"
    return "right" if owner.pid in right else "WRONG"


COLUMNS = ("flows", "right", "ambiguous", "no name", "WRONG", "not received")


def main():
    total = collections.defaultdict(collections.Counter)
    for _ in range(rounds()):
        for kind, counts in one_round().items():
            total[kind].update(counts)
    table(
        "Attribution of everyday traffic",
        ("traffic", *COLUMNS),
        [(kind, *[str(counts[column]) for column in COLUMNS]) for kind, counts in total.items()],
    )


if __name__ == "__main__":
    main()
