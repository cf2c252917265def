"""Network namespaces for tests: made by "ip netns", entered by the thread, and removed afterwards."""

import itertools
import os
import subprocess
import time
from contextlib import contextmanager

from nfct_fast.kernel.netns import resolve

number = itertools.count()


def ip(*words, netns=None):
    subprocess.run(["ip", *(("-n", netns) if netns else ()), *words], check=True, capture_output=True, text=True)


def ip6_address(address, prefix, device, netns):
    """Give a device that is up an IPv6 address, and wait for its local route, which a kernel worker adds later."""
    ip("addr", "add", f"{address}/{prefix}", "dev", device, "nodad", netns=netns)
    route = ["ip", "-n", netns, "-6", "route", "show", "table", "local", address, "dev", device]
    deadline = time.monotonic() + 10
    while not subprocess.run(route, check=True, capture_output=True).stdout:
        assert time.monotonic() < deadline, f"{address} did not become a local address"
        time.sleep(0.002)


@contextmanager
def made(up=True):
    """The name of a new namespace with "lo" up."""
    name = f"nfdiag-{os.getpid()}-{next(number)}"
    ip("netns", "add", name)
    try:
        if up:
            ip("link", "set", "lo", "up", netns=name)
        yield name
    finally:
        ip("netns", "del", name)


@contextmanager
def inside():
    """The same, with the calling thread in it."""
    with made() as name:
        [netns] = resolve(name)
        with netns, netns.entered():
            yield name


def netns_inode(name):
    return os.stat(f"/run/netns/{name}").st_ino


def use_conntrack(name):
    rules = "table inet user { chain seen { type filter hook output priority 0; ct state new counter; }; }"
    subprocess.run(["nsenter", f"--net=/run/netns/{name}", "nft", rules], check=True)
