"""What tests of whole flows share: a namespace whose entries are counted and timed, and their ends."""

import contextlib
import subprocess
import time
from pathlib import Path

from nfct_fast.conntrack import Conntrack
from support.cli import SECONDS
from support.flows import collect_count
from support.netns import inside as entered

PORT = 7171


def set_sysctl(name, value):
    Path("/proc/sys/net/netfilter", name).write_text(f"{value}\n")


def count_entries(timestamp=True):
    """Have the thread's namespace keep counters, times, and UDP entries for ten minutes."""
    set_sysctl("nf_conntrack_acct", 1)
    set_sysctl("nf_conntrack_timestamp", int(timestamp))
    set_sysctl("nf_conntrack_udp_timeout", 600)


@contextlib.contextmanager
def whole_flows(*, timestamp=True, flows=True, **options):
    """A Conntrack of whole flows in a new namespace."""
    with entered():
        count_entries(timestamp)
        with Conntrack(track=True, probe=False, flows=flows, **options) as conntrack:
            yield conntrack


def conntrack_tool(*words):
    subprocess.run(["conntrack", *words], check=True, capture_output=True)


def end_all(conntrack, wanted, count):
    """End all entries, and return the `count` records of flows for which wanted(flow) is true."""
    for family in ("ipv4", "ipv6"):
        conntrack_tool("-F", "-f", family)
    flows = collect_count(conntrack, wanted, count)
    assert len(flows) == count, flows
    return flows


def expired(conntrack, wanted, count):
    """The same of entries that end by themselves. Reading the table has the kernel free those that are over at once."""
    flows, until = [], time.monotonic() + SECONDS
    while len(flows) < count and time.monotonic() < until:
        for family in ("ipv4", "ipv6"):
            conntrack_tool("-L", "-f", family)
        flows += [flow for flow in conntrack.read(timeout=0.1) if wanted(flow)]
    assert len(flows) == count, flows
    return flows
