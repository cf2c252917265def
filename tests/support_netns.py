"""Network namespaces for tests: made by "ip netns", entered by the thread, gone afterwards."""
import itertools
import os
import subprocess
from contextlib import contextmanager

from nfct_fast.netns import resolve

number = itertools.count()


def ip(*words, netns=None):
    subprocess.run(["ip", *(("-n", netns) if netns else ()), *words], check=True, capture_output=True, text=True)


@contextmanager
def made(up=True):
    """The name of a fresh namespace with "lo" up."""
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
