"""The records of three hosts on their way to ClickHouse, with all on the way killed: `make fleet`, as root.

Three hosts, each in namespaces of its own, run nfct-fast and Debian's rsyslog with rsyslog-host.conf; a fourth machine
runs rsyslog with rsyslog-collector.conf, a broker that speaks Kafka's protocol, and ClickHouse's engine with
clickhouse.sql and clickhouse-kafka.sql: the files of `nfct-fast fleet` as they are. Every host makes flows, which its
sender writes down. Meanwhile everything fails in turn (see FAULTS). In the end every flow made has to have one record
in ClickHouse, or to be counted in a LOST record.

FLEET_RUNS: how many times (5); after them one run in which a host's disk is full, so that records are lost.
FLEET_FOLDER: where the environment with the broker and ClickHouse's engine is.
"""

import contextlib
import os
import signal
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from account import accounts, progress  # noqa: E402
from centre import Centre  # noqa: E402
from host import Host  # noqa: E402
from machine import NETWORK, cut, machine, mend, start_rsyslog  # noqa: E402

RUNS = int(os.environ.get("FLEET_RUNS", "5"))
TOOLS = Path(os.environ.get("FLEET_FOLDER", HERE.parents[1] / "build/fleet")).absolute()
SECONDS, RATE = 48, 100
BURST, BURST_RATE = 30_000, 3_000
HOSTS = f"127.0.0.1 localhost\n{NETWORK}.1 collector.example.net kafka.example.net\n"
NAMES = "alpha", "beta", "gamma"


def faults(hosts, centre):
    """(second, what, function) in order. Everything is running again eight seconds before the end."""
    alpha, beta, gamma = hosts
    collector = centre.machine
    return (
        (4, "kill -9 the broker", lambda: collector.end("broker")),
        (8, "kill -9 the collector's rsyslog while the broker is down", lambda: collector.end("rsyslog")),
        (9, "collector again", lambda: start_rsyslog(collector)),
        (12, "broker again", centre.start_broker),
        (14, "kill -9 ClickHouse", lambda: collector.end("engine")),
        (15, "ClickHouse again", centre.start_engine),
        (16, "cut beta's network", lambda: cut(beta.machine)),
        (18, "rotate alpha's file", alpha.rotate),
        (20, "rotate beta's file, while its network is cut", beta.rotate),
        (22, "kill -9 alpha's rsyslog", lambda: alpha.machine.end("rsyslog")),
        (23, "rotate alpha's file, while its rsyslog is down", alpha.rotate),
        (24, "alpha's rsyslog again", lambda: start_rsyslog(alpha.machine)),
        (25, "kill -9 the collector's rsyslog", lambda: collector.end("rsyslog")),
        (25, "collector again", lambda: start_rsyslog(collector)),
        (26, "stop beta's rsyslog, while its network is cut", lambda: beta.machine.end("rsyslog", signal.SIGTERM)),
        (27, "beta's rsyslog again", lambda: start_rsyslog(beta.machine)),
        (29, "kill -9 beta's rsyslog, while its network is cut", lambda: beta.machine.end("rsyslog")),
        (30, "beta's rsyslog again", lambda: start_rsyslog(beta.machine)),
        (31, "beta's network again", lambda: mend(beta.machine)),
        (33, "restart gamma's nfct-fast", gamma.restart_nfct_fast),
        (35, "kill -9 broker and ClickHouse", lambda: (collector.end("broker"), collector.end("engine"))),
        (37, "broker and ClickHouse again", lambda: (centre.start_broker(), centre.start_engine())),
        (39, "kill -9 the collector's relay.py", lambda: collector.kill_child("rsyslog", "relay.py")),
        (40, "kill -9 gamma's relay.py", lambda: gamma.machine.kill_child("rsyslog", "relay.py")),
        (42, "kill -9 the collector's rsyslog", lambda: collector.end("rsyslog")),
        (42, "collector again", lambda: start_rsyslog(collector)),
    )


@contextlib.contextmanager
def fleet():
    """Three hosts and the machine where their records come together, all running."""
    documents = Path(str(files("nfct_fast").joinpath("data/fleet")))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nfct-fleet-")))
        middle = stack.enter_context(machine("collector", folder / "collector", HOSTS, f"{NETWORK}.1"))
        centre = Centre(middle, documents, TOOLS)
        centre.start_store()
        centre.start_broker()
        centre.make_topic()
        start_rsyslog(middle)
        centre.start_engine()
        hosts = []
        for number, name in enumerate(NAMES, 2):
            made = machine(name, folder / name, HOSTS, f"{NETWORK}.{number}", middle.netns)
            hosts.append(Host(stack.enter_context(made), documents))
            hosts[-1].start()
        yield hosts, centre


def settled(centre, wanted, idle_s=30):
    """Wait until all that is wanted has come, or nothing has come for a while."""
    since, last = time.monotonic(), -1
    while time.monotonic() - since < idle_s:
        if (now := progress(centre)) >= wanted:
            break
        if now != last:
            since, last = time.monotonic(), now
        time.sleep(0.5)
    time.sleep(2)  # what comes twice


def run():
    """One run with all faults: the account of each host."""
    with fleet() as (hosts, centre):
        for host in hosts:
            host.start_sender(SECONDS * RATE, RATE)
        begun = time.monotonic()
        for second, what, function in faults(hosts, centre):
            time.sleep(max(0, begun + second - time.monotonic()))
            print(f"    {time.monotonic() - begun:4.1f} s  {what}", file=sys.stderr, flush=True)
            function()
        for host in hosts:
            host.machine.wait("sender", 60)
        ended = time.monotonic()
        time.sleep(2)
        settled(centre, sum(len(host.records()[0]) for host in hosts))
        print(f"    all is there {time.monotonic() - ended:.0f} s after the last flow", file=sys.stderr, flush=True)
        return list(accounts(hosts, centre))


def run_full_disk():
    """One run in which alpha's disk is full: of a burst, what nfct-fast has no room for has to be counted."""
    with fleet() as (hosts, centre):
        alpha = hosts[0]
        alpha.shrink_disk("4m")
        alpha.start_sender(BURST, BURST_RATE)
        alpha.machine.wait("sender", 120)
        time.sleep(2)
        alpha.grow_disk("1g")
        # What was lost is said before the next record.
        alpha.start_sender(RATE, RATE)
        alpha.machine.wait("sender", 60)
        time.sleep(3)
        settled(centre, len(alpha.records()[0]))
        [account] = accounts([alpha], centre)
        if not account.lost:
            account.faults.append("nothing was lost")
        return account


def show(title, account):
    print(
        f"| {title} | {account.host} | {account.made:,} | {account.rows:,} | {account.twice:,} | {account.stored:,} "
        f"| {account.lost:,} | {account.missing:,} |",
        flush=True,
    )
    for fault in account.faults:
        print(f"{account.host}: {fault}", file=sys.stderr, flush=True)


def main():
    print("| run | host | made | rows | of these twice | stored | counted lost | missing |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    right = True
    for number in range(1, RUNS + 1):
        for account in run():
            show(number, account)
            right &= account.is_right
    account = run_full_disk()
    show("full disk", account)
    sys.exit(not right or not account.is_right)


if __name__ == "__main__":
    main()
