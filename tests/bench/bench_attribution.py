"""From a tuple to its process: nfct_fast beside psutil and ss(8); and decoding beside pyroute2.

Run as root: python tests/bench/bench_attribution.py. What is not installed is left out. Both peers list all sockets for
one answer, since neither can be asked for one; the cost of doing so for each flow is therefore that of the list.
"""
import contextlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

from support_bench import RCVBUF, rounds, space, table

from nfct_fast.attribution import Attribution
from nfct_fast.netns import resolve
from nfct_fast.trial import find_flow

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


def attribution():
    rows = []
    for size in SIZES:
        kept = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(size)]
        for one in kept:
            one.bind(("127.0.0.1", 0))
        sport = kept[size // 2].getsockname()[1]
        found = Attribution("diag")

        def ours():
            flow = find_flow(found, socket.IPPROTO_UDP, "127.0.0.1", sport, "127.0.0.1", 9)
            assert flow.owner.pid == os.getpid()

        def with_ss():
            text = subprocess.run(["ss", "-unap"], capture_output=True, text=True, check=True).stdout
            assert f"pid={os.getpid()}," in next(line for line in text.splitlines() if f":{sport} " in line)

        cases = {"nfct_fast, sock_diag and /proc": (ours, 300), "ss -unap": (with_ss, 10)}
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
    table("CPU µs to name the process of one UDP socket", ["sockets", "by", "µs", "x nfct_fast"], rows)


def decoding(place):
    """The same messages, decoded into Python objects by pyroute2 and by nfct_fast with all that is before and after."""
    try:
        from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg
    except ImportError:
        return
    import nfct_fast.conntrack as ours
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    listener.setsockopt(socket.SOL_SOCKET, 33, RCVBUF)      # SO_RCVBUFFORCE
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
            conntrack.read(5)
            began, count = time.process_time(), 0
            made = place.flood(4 * MESSAGES, 0)
            while count < made:
                count += len(conntrack.read(1))
            own.append(made / (time.process_time() - began))
    them, us = statistics.median(theirs), statistics.median(own)
    table("Conntrack events as Python objects", ["by", "events per CPU s", "x pyroute2"],
          [["pyroute2, decoding alone", f"{them:,.0f}", "1.0"],
           ["Conntrack: received, decoded, made into Flow", f"{us:,.0f}", f"{us / them:,.0f}"]])


def main():
    with space() as place:
        [home] = resolve(place.name)
        with home, home.entered():
            attribution()
            decoding(place)


if __name__ == "__main__":
    sys.exit(main())
