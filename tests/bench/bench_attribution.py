"""Compare finding the process of a tuple with psutil, ss(8) and lsof(8), and decoding events with pyroute2.

Run as root: python tests/bench/bench_attribution.py [--short]. Peers that are not installed are skipped. They cannot
look up a single socket, so for each flow they have to list all. --short: only count how many of 1,000 processes are
named that send one datagram and exit, while the peers list sockets all the time.
"""

import contextlib
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

from nfct_fast.attribution.resolver import Resolver
from nfct_fast.kernel.netns import resolve
from nfct_fast.testing.hooks import find_flow
from support_bench import NFCT_FAST, RCVBUF, Program, rounds, space, table

LSOF = ["lsof", "-nP", "-iUDP"]
SHORT = 1_000
SIZES = (200, 2_000)
MESSAGES = 5_000


def cpu():
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def timed(work, count):
    began = cpu()
    for _ in range(count):
        work()
    return (cpu() - began) / count * 1e6


def one_socket():
    """Name the process of one UDP socket among many."""
    rows = []
    for size in SIZES:
        kept = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(size)]
        for one in kept:
            one.bind(("127.0.0.1", 0))
        sport = kept[size // 2].getsockname()[1]
        found = Resolver("diag")

        def ours():
            flow = find_flow(found, socket.IPPROTO_UDP, "127.0.0.1", sport, "127.0.0.1", 9)
            assert flow.owner.pid == os.getpid()

        def with_ss():
            text = subprocess.run(["ss", "-unap"], capture_output=True, text=True, check=True).stdout
            assert f"pid={os.getpid()}," in next(line for line in text.splitlines() if f":{sport} " in line)

        cases = {"nfct_fast, sock_diag and /proc": (ours, 300), "ss -unap": (with_ss, 10)}
        if shutil.which("lsof"):

            def with_lsof():
                text = subprocess.run([*LSOF, "-Fpn"], capture_output=True, text=True).stdout
                before, _, _ = f"\n{text}".partition(f":{sport}\n")
                assert before.rpartition("\np")[2].startswith(f"{os.getpid()}\n")

            cases[" ".join(LSOF)] = (with_lsof, 3)
        with contextlib.suppress(ImportError):
            import psutil

            def with_psutil():
                [owner] = [one.pid for one in psutil.net_connections("udp4") if one.laddr.port == sport]
                assert owner == os.getpid()

            cases["psutil.net_connections()"] = (with_psutil, 10)
        ours()
        times = {name: [] for name in cases}
        for _ in range(rounds()):
            for name, (work, count) in cases.items():
                times[name].append(timed(work, count))
        medians = {name: statistics.median(values) for name, values in times.items()}
        least = medians["nfct_fast, sock_diag and /proc"]
        rows += [[f"{size:,}", name, f"{value:,.0f}", f"{value / least:,.0f}"] for name, value in medians.items()]
        found.close()
        for one in kept:
            one.close()
    table(
        f"CPU µs to name the process of one UDP socket, medians of {rounds()}",
        ["sockets", "by", "µs", "x nfct_fast"],
        rows,
    )


def decoding(place):
    """Decode the same messages into Python objects, by pyroute2 alone and by nfct_fast from receiving to `Flow`."""
    try:
        from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg
    except ImportError:
        return
    import nfct_fast.conntrack as ours

    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    listener.setsockopt(socket.SOL_SOCKET, 33, RCVBUF)  # SO_RCVBUFFORCE
    listener.bind((0, 1))
    messages, theirs, own = [], [], []
    place.flood(MESSAGES, 0)
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(listener.recv(8192))
    listener.close()
    for _ in range(rounds()):
        began = time.thread_time()
        for message in messages:
            decoded = nfct_msg(message)
            decoded.decode()
            decoded.get_attr("CTA_TUPLE_ORIG")
        theirs.append(len(messages) / (time.thread_time() - began))
        place.empty()
        with ours.Conntrack(attribution="off", probe=False) as conntrack:
            place.flood(1, 0, address="10.99.9.9")
            conntrack.read(timeout=5)
            began, count = time.process_time(), 0
            made = place.flood(4 * MESSAGES, 0)
            while count < made:
                count += len(conntrack.read(timeout=1))
            own.append(made / (time.process_time() - began))
    them, us = statistics.median(theirs), statistics.median(own)
    table(
        f"Conntrack events as Python objects, medians of {rounds()}",
        ["by", "events per CPU s", "x pyroute2"],
        [
            ["pyroute2, decoding alone", f"{them:,.0f}", "1.0"],
            ["Conntrack: received, decoded, made into Flow", f"{us:,.0f}", f"{us / them:,.0f}"],
        ],
    )


def address(number):
    return f"10.99.{number // 250 + 1}.{number % 250 + 1}"


def send_all(place):
    """Start processes that each send one datagram and exit. Return {address: pid} and the CPU seconds this took."""
    pids, spent = {}, 0.0
    for number in range(SHORT):
        process = place.start(place.flood_program, 1, 0, "connected", address(number), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        pids[address(number)] = process.pid
        spent += usage.ru_utime + usage.ru_stime
    return pids, spent


def reported_by(place, options):
    """Return {address: pid} as nfct_fast reports it, the CPU seconds it used, and the true {address: pid}."""
    place.empty()
    output = place.directory / "output"
    with open(output, "wb") as stdout:
        program = Program(place, [*NFCT_FAST, "-f", "{ev.dst} {info.pid}", *options], stdout)
        pids, _ = send_all(place)
        place.await_empty_queues()
        time.sleep(0.3)
        spent = program.spent()
        program.end()
    pairs = (line.split() for line in output.read_text().splitlines())
    return {address: int(pid) for address, pid in pairs if pid != "?"}, spent, pids


def listed_by(place, listing):
    """Return the same for listing(), which is called in a loop and returns pairs of address and pid."""
    place.empty()
    found, stop = {}, threading.Event()

    def poll():
        while not stop.is_set():
            found.update(listing())

    thread = threading.Thread(target=poll)
    began = cpu()
    thread.start()
    pids, sending = send_all(place)
    stop.set()
    thread.join()
    return found, cpu() - began - sending, pids


def with_ss():
    text = subprocess.run(["ss", "-Hunap"], capture_output=True, text=True).stdout
    return [(match[1], int(match[2])) for match in re.finditer(r" (10\.99\.\d+\.\d+):1024 .*pid=(\d+),", text)]


def with_lsof():
    text = subprocess.run([*LSOF, "-Fpn"], capture_output=True, text=True).stdout
    entry = re.compile(r"^p(\d+)\n(?:f.*\n)?n.*->(10\.99\.\d+\.\d+):1024$", re.M)
    return [(match[2], int(match[1])) for match in entry.finditer(text)]


def short(place):
    cases = {
        "nfct_fast": lambda: reported_by(place, ()),
        "nfct_fast --attribution diag": lambda: reported_by(place, ("--attribution", "diag")),
        "ss -Hunap, all the time": lambda: listed_by(place, with_ss),
    }
    with contextlib.suppress(ImportError):
        import psutil

        cases["psutil.net_connections(), all the time"] = lambda: listed_by(
            place, lambda: [(one.raddr.ip, one.pid) for one in psutil.net_connections("udp4") if one.raddr and one.pid]
        )
    if shutil.which("lsof"):
        cases[" ".join(LSOF) + ", all the time"] = lambda: listed_by(place, with_lsof)
    results = {name: [] for name in cases}
    for _ in range(rounds()):
        for name, case in cases.items():
            found, spent, pids = case()
            right = sum(found.get(one) == pid for one, pid in pids.items())
            wrong = sum(one in pids and pids[one] != pid for one, pid in found.items())
            results[name].append((right, wrong, spent * 1e3))
    table(
        f"{SHORT:,} processes that send one datagram and exit, medians of {rounds()}",
        ["by", "named right", "wrong", "CPU ms"],
        [[name, *(f"{statistics.median(values):,.0f}" for values in zip(*these))] for name, these in results.items()],
    )


def main(arguments=()):
    with space() as place:
        [netns] = resolve(place.name)
        with netns, netns.entered():
            if "--short" not in arguments:
                one_socket()
                decoding(place)
            short(place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
